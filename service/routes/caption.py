"""``POST /v1/caption``: one or more images in, their captions out, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, request

from captioner import Caption
from captioner.errors import CaptionerError
from service.captioning import Captioning
from service.errors import error_item
from service.inputs import read_upload


def blueprint(captioning: Captioning) -> Blueprint:
    """The caption route."""
    routes = Blueprint("caption", __name__)

    @routes.post("/v1/caption")
    def caption() -> dict[str, Any]:
        upload = read_upload(request, captioning.config)
        captioned = captioning.caption(upload.images, {**request.args.to_dict(), **upload.fields})
        if len(captioned.results) == 1 and isinstance(captioned.results[0], CaptionerError):
            raise captioned.results[0]  # with one image the status can tell
        results = [
            error_item(result) if isinstance(result, CaptionerError) else _result(result, captioned.options.attention)
            for result in captioned.results
        ]
        return {"model": captioned.model.info.name, "results": results}

    return routes


def _result(captions: Sequence[Caption], attention: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"captions": [caption.to_row() for caption in captions]}
    if attention:
        best, *others = captions
        _, rows, columns = best.attention.shape
        result["attention"] = {
            "rows": rows,
            "columns": columns,
            "weights": _weights(best),
            "others": [_weights(caption) for caption in others],
        }
    return result


def _weights(caption: Caption) -> list[Any]:
    """A list for each token, of rows; four decimals are more than anyone sees."""
    weights: list[Any] = caption.attention.astype(float).round(4).tolist()
    return weights
