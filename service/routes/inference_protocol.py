"""The Open Inference Protocol, version 2, as KServe and Triton speak it, with its extension for binary data.

One tensor of images comes in, in whatever shape; a caption and its score go out for each, in that same shape. Decoding
options are the request's ``parameters``. The protocol has no error for a single element: the first image that fails
fails the request. ``/v2/health`` is in :mod:`service.routes.health`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, Response, current_app, g, request

from captioner import Caption, __version__
from captioner.errors import CaptionerError, OptionError
from service.captioning import Captioning
from service.errors import RequestError
from service.inputs import read_body
from service.options import read_flag
from service.tensors import HEADER, Output, read_images, read_outputs, split

OUTPUTS = {"caption": "BYTES", "score": "FP32"}
VERSION = "1"  # the only one: a model of another kind has another name
MISPLACED = ("model", "n_best", "attention")  # the path names the model, and a tensor holds one caption an image
LONGEST_ID = 256


def blueprint(captioning: Captioning) -> Blueprint:
    """The routes over ``captioning``."""
    routes = Blueprint("inference_protocol", __name__, url_prefix="/v2")

    @routes.get("")
    def server() -> dict[str, Any]:
        return {"name": "captioner", "version": __version__, "extensions": ["binary_tensor_data"]}

    @routes.get("/models/<name>")
    @routes.get(f"/models/<name>/versions/{VERSION}")
    def model(name: str) -> dict[str, Any]:
        return {
            "name": captioning.registry.get(name).info.name,
            "versions": [VERSION],
            "platform": "captioner_safetensors",
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": each, "datatype": datatype, "shape": [-1]} for each, datatype in OUTPUTS.items()],
        }

    @routes.get("/models/<name>/ready")
    @routes.get(f"/models/<name>/versions/{VERSION}/ready")
    def ready(name: str) -> dict[str, Any]:
        captioning.registry.get(name).ready()  # its error is the reply: 503 and the cause
        return {"name": name, "ready": True}

    @routes.post("/models/<name>/infer")
    @routes.post(f"/models/<name>/versions/{VERSION}/infer")
    def infer(name: str) -> Response:
        given, binary = split(read_body(request, captioning.config.max_bytes), request.headers.get(HEADER))
        identity, parameters = _read(given)
        in_binary = read_flag("binary_data_output", parameters.pop("binary_data_output", False))
        wanted = read_outputs(given.get("outputs"), OUTPUTS, in_binary)
        images = read_images(given.get("inputs"), binary, captioning.config.max_images)
        captions = caption(images.images, {**parameters, "model": name})
        data: dict[str, Sequence[Any]] = {
            "caption": [each.text for each in captions],
            "score": [each.score for each in captions],
        }
        outputs = [Output(each, OUTPUTS[each], images.shape, data[each], wanted[each]) for each in wanted]
        return _reply({"model_name": name, "model_version": VERSION, "id": identity}, outputs)

    def caption(images: Sequence[object], fields: Mapping[str, object]) -> list[Caption]:
        """The best caption of each image."""
        best = []
        for index, result in enumerate(captioning.caption(images, fields).results):
            if isinstance(result, CaptionerError):
                raise CaptionerError(f"Image {index}: {result}", code=result.code)
            best.append(result[0])
        return best

    return routes


def _read(given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The request's own name, and its parameters."""
    unknown = sorted(set(given) - {"id", "parameters", "inputs", "outputs"})
    if unknown:
        raise RequestError(f"{reprlib.repr(unknown[0])} is not known; there are id, parameters, inputs and outputs")
    identity, parameters = given.get("id", g.request_id), given.get("parameters", {})
    if not isinstance(identity, str) or not identity.isprintable() or len(identity) > LONGEST_ID:
        raise RequestError(f'"id" must be a text of at most {LONGEST_ID} printable characters')
    if not isinstance(parameters, dict):
        raise RequestError('"parameters" must be a JSON object')
    misplaced = sorted(set(parameters) & set(MISPLACED))
    if misplaced:
        raise OptionError(f"{misplaced[0]} has no meaning here; POST /v1/caption has it")
    return identity, dict(parameters)


def _reply(head: Mapping[str, Any], outputs: Sequence[Output]) -> Response:
    text = current_app.json.dumps({**head, "outputs": [output.describe() for output in outputs]}).encode()
    if not any(output.binary for output in outputs):
        return Response(text, mimetype="application/json")
    body = text + b"".join(output.pack() for output in outputs)
    return Response(body, mimetype="application/octet-stream", headers={HEADER: str(len(text))})
