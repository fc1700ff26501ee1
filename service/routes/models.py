"""``GET /v1/models``: what is served, with the measured figures."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from service.models import ModelRegistry, ServedModel


def blueprint(registry: ModelRegistry) -> Blueprint:
    """The route that describes the models of ``registry``."""
    routes = Blueprint("models", __name__)

    @routes.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"default": registry.get().info.name, "models": [_describe(model) for model in registry]}

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
    }
