"""What clients of IBM's MAX Image Caption Generator speak: ``/model/predict`` and ``/model/metadata``.

Its three captions are here the three best of the model's own search, so that the first is the one that all other routes
give. What it took is a form with an ``image``; the other bodies of ``POST /v1/caption`` and its options serve as well.
Its errors had no shape of their own, so they have ours.
"""

from __future__ import annotations

import math
from typing import Any

from flask import Blueprint, request

from captioner.errors import OptionError
from service.address import address
from service.captioning import Captioning
from service.inputs import read_upload

PREDICTIONS = 3


def blueprint(captioning: Captioning) -> Blueprint:
    """The routes over ``captioning``."""
    routes = Blueprint("ibm_max", __name__, url_prefix="/model")

    @routes.post("/predict")
    def predict() -> dict[str, Any]:
        upload = read_upload(request, captioning.config)
        usual = {"n_best": min(PREDICTIONS, captioning.config.max_beam_size)}
        fields = {**usual, **request.args.to_dict(), **upload.fields}
        if "attention" in fields:
            raise OptionError("attention has no meaning here; POST /v1/caption has it")
        _, captions = captioning.caption_one(upload.images, fields)
        predictions = [
            {"index": str(index), "caption": caption.text, "probability": math.exp(caption.log_probability)}
            for index, caption in enumerate(captions)
        ]
        return {"status": "ok", "predictions": predictions}

    @routes.get("/metadata")
    def metadata() -> dict[str, str]:
        info = captioning.registry.get().info
        return {
            "id": info.name,
            "name": f"captioner: {info.name}",
            "description": info.description,
            "type": "Image-to-Text Translation",
            "license": "MIT for the code; the model's card tells about its training data",
            "source": f"{address()}v1/models",
        }

    return routes
