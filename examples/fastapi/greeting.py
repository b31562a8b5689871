def greeting() -> str:
    return "Hello from FastAPI"
