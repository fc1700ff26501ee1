"""``POST /v1/caption``: one or more images in, their captions out, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, request

from captioner import Caption
from captioner.config import ImageConfig
from captioner.engines import FloatArray
from captioner.errors import CaptionerError
from captioner.images import load_pixels
from service.config import ServiceConfig
from service.errors import error_item
from service.inputs import image_bytes, read_upload
from service.models import ModelRegistry
from service.options import parse_options


def blueprint(registry: ModelRegistry, config: ServiceConfig) -> Blueprint:
    """The caption route over the models of ``registry``, within the limits of ``config``."""
    routes = Blueprint("caption", __name__)

    @routes.post("/v1/caption")
    def caption() -> dict[str, Any]:
        upload = read_upload(request, config)
        options = parse_options({**request.args.to_dict(), **upload.fields}, config)
        model = registry.get(options.model)
        decoding = model.ready().options(**options.decoding)  # refused before any image is decoded
        loaded = [_load(image, model.info.image, config.max_pixels) for image in upload.images]
        if len(loaded) == 1 and isinstance(loaded[0], CaptionerError):
            raise loaded[0]  # with one image the status can tell
        captions = iter(model.caption([item for item in loaded if not isinstance(item, CaptionerError)], decoding))
        results = [
            error_item(item) if isinstance(item, CaptionerError) else _result(next(captions), options.attention)
            for item in loaded
        ]
        return {"model": model.info.name, "results": results}

    return routes


def _load(image: object, config: ImageConfig, max_pixels: int) -> FloatArray | CaptionerError:
    """The network's input for one image, or what is wrong with it."""
    try:
        return load_pixels(image_bytes(image), config, max_pixels=max_pixels)
    except CaptionerError as error:
        return error


def _result(captions: Sequence[Caption], attention: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"captions": [caption.to_row() for caption in captions]}
    if attention:
        weights = captions[0].attention
        _, rows, columns = weights.shape
        result["attention"] = {"rows": rows, "columns": columns, "weights": weights.astype(float).round(4).tolist()}
    return result
