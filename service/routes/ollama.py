"""What Ollama's clients and PhotoPrism speak: ``/api/generate``, ``/api/chat`` and what they ask before.

The answer is the caption as a sentence; see :mod:`service.conversation` for what is not read. Of ``options`` only
``num_predict`` counts, which may shorten the caption; one below 1 is no bound, as with Ollama. Everything else in there
is for large language models, and Ollama too passes over what its model has not. ``format`` is refused: a caption is
plain text.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, current_app, request

from captioner import __version__
from captioner.checkpoint import ModelInfo
from captioner.config import is_whole
from service.captioning import Captioning
from service.conversation import answer, choose, last_of_user
from service.errors import RequestError
from service.inputs import read_json
from service.options import read_flag

TAG = ":latest"  # Ollama's names have a tag, and clients add this one
KNOWN = ("model", "stream", "options")
IDLE = (
    *("prompt", "system", "suffix", "template", "context", "raw", "think"),  # for models that read
    *("keep_alive", "truncate", "shift"),  # how Ollama runs those
    *("id", "version", "url", "schema", "org", "project"),  # PhotoPrism's request has these as well
)


def blueprint(captioning: Captioning) -> Blueprint:
    """The routes over ``captioning``."""
    routes = Blueprint("ollama", __name__, url_prefix="/api")

    @routes.post("/generate")
    def generate() -> Response:
        given = read_json(request, captioning.config)
        fields = choose(given, (*KNOWN, "images"), IDLE)
        return reply(fields, fields.get("images", []), lambda text: {"response": text})

    @routes.post("/chat")
    def chat() -> Response:
        given = read_json(request, captioning.config)
        fields = choose(given, (*KNOWN, "messages"), IDLE)
        images = last_of_user(fields.get("messages")).get("images") or []
        return reply(fields, images, lambda text: {"message": {"role": "assistant", "content": text}})

    def reply(fields: dict[str, Any], images: object, say: Callable[[str], dict[str, Any]]) -> Response:
        """One JSON object, or two in lines of their own: what is said, and that it is all."""
        if not isinstance(images, list):
            raise RequestError('"images" must be a list with one base64 text')
        streamed = read_flag("stream", fields.get("stream", True))
        start = time.perf_counter_ns()
        said = answer(captioning, images, _untagged(fields.get("model")), _most(fields.get("options", {})))
        (caption,) = said.captions
        head = {
            "model": fields.get("model", captioning.registry.get().info.name + TAG),
            "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
        tail = {
            "done": True,
            "done_reason": said.reason(caption),
            "total_duration": time.perf_counter_ns() - start,
            "eval_count": said.tokens,
        }
        lines = [head | say(caption.sentence) | tail]
        if streamed:
            lines = [head | say(caption.sentence) | {"done": False}, head | say("") | tail]
        body = "\n".join(current_app.json.dumps(line) for line in lines) + "\n"
        return Response(body, mimetype="application/x-ndjson" if streamed else "application/json")

    @routes.get("/tags")
    def tags() -> dict[str, Any]:
        return {"models": [_describe(model.info) for model in captioning.registry]}

    @routes.post("/show")
    def show() -> dict[str, Any]:
        given = read_json(request, captioning.config)
        named = {"model": given.pop("name", None), **given}  # as older clients call it
        info = captioning.registry.get(_untagged(choose(named, ("model",), ("verbose",)).get("model"))).info
        return {
            "details": _describe(info)["details"],
            "model_info": {"general.architecture": "captioner", "general.description": info.description},
            "capabilities": ["completion", "vision"],
        }

    @routes.get("/version")
    def version() -> dict[str, str]:
        return {"version": __version__}

    return routes


def _untagged(name: str | None) -> str | None:
    return name and name.removesuffix(TAG)


def _most(options: object) -> Any:
    """The bound on the tokens, or None."""
    if not isinstance(options, dict):
        raise RequestError('"options" must be a JSON object')
    most: Any = options.get("num_predict")
    return None if is_whole(most) and most < 1 else most


def _describe(info: ModelInfo) -> dict[str, Any]:
    name = info.name + TAG
    config = json.dumps(info.to_dict(), sort_keys=True)
    return {
        "name": name,
        "model": name,
        "digest": hashlib.sha256(config.encode()).hexdigest(),  # clients tell models apart by it
        "details": {"format": "safetensors", "family": "captioner", "families": ["captioner"]},
    }
