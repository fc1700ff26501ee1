"""The obvious caption server, to compare with: Flask, one model, a lock.

python benchmarks/serving/plain_flask.py MODEL PORT
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from flask import Flask, request

import captioner


def create_app(model: str) -> Flask:
    """``POST /caption`` takes an image, ``GET /ready`` answers."""
    app = Flask(__name__)
    loaded = captioner.load(model)
    turn = threading.Lock()  # a Captioner is for one thread at a time

    @app.get("/ready")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/caption")
    def caption() -> dict[str, Any]:
        with turn:
            return loaded(request.data).to_row()

    return app


if __name__ == "__main__":
    create_app(sys.argv[1]).run("127.0.0.1", int(sys.argv[2]), threaded=True)
