from flask import Flask, render_template

from greeting import greeting


def create_app() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def index():
        return render_template("index.html", greeting=greeting())

    @app.get("/health")
    def health():
        return {"status": "ok"}

    return app
