def greeting() -> str:
    return "Hello from Flask"
