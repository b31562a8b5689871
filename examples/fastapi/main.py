from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from greeting import greeting

app = FastAPI()


@app.get("/", response_class=PlainTextResponse)
async def index() -> str:
    return greeting() + "\n"


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}
