"""The Open Inference Protocol, version 2, see :mod:`service.routes.inference_protocol`."""

from __future__ import annotations

from captioner import __version__
from service.captioning import Captioning
from service.openapi.errors import JSON_BODY, LOADING, UNREADY, WORK
from service.openapi.operation import BINARY, JSON, PICTURE, Body, Operation, path
from service.openapi.options import model_schema, option_schemas
from service.openapi.schema import Schema, listing, of, record, ref
from service.openapi.schemas import IMAGE
from service.routes.inference_protocol import LONGEST_ID, MISPLACED, OUTPUTS, VERSION
from service.tensors import HEADER, MAX_DIMENSIONS

NAME = "Open Inference Protocol"
DESCRIPTION = "Version 2, as clients of KServe and Triton speak it, with the extension for binary tensor data."


def operations(captioning: Captioning) -> list[Operation]:
    """The server, its models, inference."""
    name = path("name", model_schema(captioning), captioning.registry.get().info.name)
    told = [
        Operation("get", "/v2", "What this server is", {JSON: _SERVER}),
        Operation("get", "/v2/health/live", "Whether the process answers", {JSON: ref("Live")}),
        Operation("get", "/v2/health/ready", "Whether it takes work", {JSON: ref("Ready")}, errors=UNREADY),
    ]
    for place in ("/v2/models/{name}", f"/v2/models/{{name}}/versions/{VERSION}"):
        told += [
            Operation(
                "get",
                place,
                "What a model takes and gives",
                {JSON: _MODEL},
                parameters=(name,),
                errors=("model_not_found",),
            ),
            Operation(
                "get",
                f"{place}/ready",
                "Whether a model is ready",
                {JSON: record({"name": _NAME, "ready": of("boolean", const=True)})},
                parameters=(name,),
                errors=("model_not_found", *LOADING),
            ),
            Operation(
                "post",
                f"{place}/infer",
                "Caption a tensor of pictures",
                {JSON: _reply(), BINARY: {"description": f"{HEADER} bytes of JSON, then the tensors."}},
                "The first picture that fails fails the request.",
                (name,),
                {JSON: Body(_request(captioning), _EXAMPLE)},
                (*JSON_BODY, *WORK),
            ),
        ]
    return told


_NAME = of("string", "The model.", examples=["words"])
_SHAPE = listing(of("integer", minimum=1, examples=[1]), "How many there are, in each dimension.")
_ID = of("string", "What the reply is to be called by.", maxLength=LONGEST_ID, examples=["1"])
_SERVER = record(
    {
        "name": of("string", const="captioner"),
        "version": of("string", const=__version__),
        "extensions": listing(of("string", examples=["binary_tensor_data"])),
    }
)
_TENSOR = record(
    {
        "name": of("string", examples=["image"]),
        "datatype": of("string", examples=["BYTES"]),
        "shape": listing(of("integer", "-1 for any number.", examples=[-1])),
    }
)
_MODEL = record(
    {
        "name": _NAME,
        "versions": listing(of("string", const=VERSION)),
        "platform": of("string", examples=["captioner_safetensors"]),
        "inputs": listing(_TENSOR),
        "outputs": listing(_TENSOR),
    }
)
_EXAMPLE = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [PICTURE]}]}


def _request(captioning: Captioning) -> Schema:
    options = {name: schema for name, schema in option_schemas(captioning).items() if name not in MISPLACED}
    in_binary = of("boolean", "Whether the outputs come in binary, behind the JSON.")
    tensor = record(
        {
            "name": of("string", "Any.", examples=["image"]),
            "shape": {**_SHAPE, "minItems": 1, "maxItems": MAX_DIMENSIONS},
            "datatype": of("string", const="BYTES"),
        },
        {
            "data": listing(IMAGE, "The pictures, row by row."),
            "parameters": record(
                {}, {"binary_data_size": of("integer", "Instead of data: bytes after the JSON.", minimum=0)}
            ),
        },
    )
    output = record(
        {"name": of("string", enum=list(OUTPUTS))},
        {"parameters": record({}, {"binary_data": of("boolean", "Whether it comes in binary.")})},
    )
    return record(
        {"inputs": listing(tensor, "One tensor.", minItems=1, maxItems=1)},
        {
            "id": _ID,
            "parameters": record({}, {**options, "binary_data_output": in_binary}, "Options of the captions."),
            "outputs": listing(output, "The outputs wanted; all unless told otherwise."),
        },
    )


def _reply() -> Schema:
    outputs = [
        record(
            {
                "name": of("string", const=name),
                "shape": _SHAPE,
                "datatype": of("string", const=datatype),
                "data": listing(of(kind, examples=[example]), "One for each picture."),
            }
        )
        for (name, datatype), (kind, example) in zip(
            OUTPUTS.items(), [("string", "two dogs run through the grass"), ("number", -0.9132)], strict=True
        )
    ]
    return record(
        {
            "model_name": _NAME,
            "model_version": of("string", const=VERSION),
            "id": of("string", "The request's, or its name in the log.", examples=["1"]),
            "outputs": listing({"oneOf": outputs}),
        }
    )
