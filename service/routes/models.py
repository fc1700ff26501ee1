"""``GET /v1/models``: what is served, with the measured figures, and how much of it a request may ask for.

``object`` and ``data`` are for OpenAI's clients, which list models at the same place.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from captioner.checkpoint import ModelInfo
from captioner.errors import OptionError
from captioner.phones import check_phones
from captioner.tokens import SPECIAL_TOKENS
from service.captioning import Captioning
from service.models import ServedModel

LIMITS = ("max_bytes", "max_pixels", "max_images", "max_beam_size", "max_tokens")


def blueprint(captioning: Captioning) -> Blueprint:
    """The route that describes the models and limits of ``captioning``."""
    routes = Blueprint("models", __name__)

    @routes.get("/v1/models")
    def models() -> dict[str, Any]:
        return {
            "default": captioning.registry.get().info.name,
            "models": [_describe(model) for model in captioning.registry],
            "limits": {name: getattr(captioning.config, name) for name in LIMITS},
            "object": "list",
            "data": [_as_openai(model) for model in captioning.registry],
        }

    return routes


def _describe(model: ServedModel) -> dict[str, Any]:
    info = model.info
    return {
        "name": info.name,
        "status": model.status,
        "description": info.description,
        "figures": dict(info.figures),
        "provenance": dict(info.provenance),
        "image": {"height": info.image.height, "width": info.image.width, "fit": info.image.fit},
        "tokenizer": info.tokenizer,
        "vocabulary_size": info.model.vocabulary_size,
        "decoding": info.decoding.to_dict(),
        "spoken_as": _spoken_as(info),
    }


def _as_openai(model: ServedModel) -> dict[str, Any]:
    # A model's directory does not tell when it was made, and their clients insist on a number.
    return {"id": model.info.name, "object": "model", "created": 0, "owned_by": "captioner"}


def _spoken_as(info: ModelInfo) -> str | None:
    """Which field of ``POST /v1/speech`` takes its captions: ``text`` or ``phones``; None for symbols of its own."""
    if info.tokenizer != "symbols":
        return "text"
    try:
        check_phones(info.vocabulary.tokens[len(SPECIAL_TOKENS) :])
    except OptionError:
        return None
    return "phones"
