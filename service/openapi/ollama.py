"""What Ollama's clients and PhotoPrism speak, see :mod:`service.routes.ollama`."""

from __future__ import annotations

from captioner import __version__
from service.captioning import Captioning
from service.openapi.errors import JSON_BODY, WORK
from service.openapi.operation import JSON, LINES, PICTURE, Body, Operation
from service.openapi.schema import Schema, listing, of, record
from service.openapi.schemas import IMAGE
from service.routes.ollama import TAG

NAME = "Ollama"
DESCRIPTION = "For Ollama's clients and PhotoPrism. The words beside a picture are not read: its caption is the answer."


def operations(captioning: Captioning) -> list[Operation]:
    """Generation, chat, and what clients ask before."""
    name = captioning.registry.get().info.name + TAG
    return [
        Operation(
            "post",
            "/api/generate",
            "Caption a picture",
            _answers({"response": _SENTENCE}),
            _ABOUT,
            bodies={
                JSON: Body(
                    _asked({"images": _IMAGES}, {"prompt": _UNREAD}),
                    {"prompt": "What is this?", "images": [PICTURE], "stream": False},
                )
            },
            errors=(*JSON_BODY, *WORK),
        ),
        Operation(
            "post",
            "/api/chat",
            "Caption the picture of a message",
            _answers({"message": record({"role": of("string", const="assistant"), "content": _SENTENCE})}),
            _ABOUT,
            bodies={
                JSON: Body(
                    _asked({"messages": listing(_MESSAGE, "The picture is that of the user's last message.")}, {}),
                    {
                        "messages": [{"role": "user", "content": "What is this?", "images": [PICTURE]}],
                        "stream": False,
                    },
                )
            },
            errors=(*JSON_BODY, *WORK),
        ),
        Operation("get", "/api/tags", "Which models there are", {JSON: record({"models": listing(_MODEL)})}),
        Operation(
            "post",
            "/api/show",
            "What a model is",
            {JSON: _SHOWN},
            bodies={JSON: Body({"type": "object", "properties": {"model": _NAME}}, {"model": name})},
            errors=(*JSON_BODY, "bad_option", "model_not_found"),
        ),
        Operation(
            "get",
            "/api/version",
            "Which version this is",
            {JSON: record({"version": of("string", "Of captioner.", const=__version__)})},
        ),
    ]


_ABOUT = (
    "It comes in two lines of JSON unless stream is false. Of options only num_predict counts: it may shorten the "
    "caption. Other fields of Ollama's are passed over, but format and tools are refused."
)
_NAME = of("string", f"The name of a model, with or without {TAG}.", examples=["words" + TAG])
_SENTENCE = of("string", "The caption.", examples=["Two dogs run through the grass."])
_UNREAD = of("string", "Not read.")
_IMAGES = listing(IMAGE, "The picture.", minItems=1, maxItems=1)
_MESSAGE = {
    "type": "object",
    "properties": {
        "role": of("string", "Whose message it is.", enum=["user", "assistant", "system"]),
        "content": _UNREAD,
        "images": _IMAGES,
    },
    "required": ["role"],
}
_DETAILS = record(
    {
        "format": of("string", const="safetensors"),
        "family": of("string", const="captioner"),
        "families": listing(of("string", const="captioner")),
    }
)
_MODEL = record(
    {
        "name": _NAME,
        "model": _NAME,
        "digest": of("string", "Tells one model from another.", pattern="^[0-9a-f]{64}$", examples=["0" * 64]),
        "details": _DETAILS,
    }
)
_SHOWN = record(
    {
        "details": _DETAILS,
        "model_info": of("object", "What the model says about itself."),
        "capabilities": listing(of("string", examples=["vision"])),
    }
)


def _asked(required: dict[str, Schema], optional: dict[str, Schema]) -> Schema:
    """What both take; fields that are not told here may be there too."""
    common = {
        "model": _NAME,
        "stream": of("boolean", "Whether to answer in lines; true unless told otherwise."),
        "options": of(
            "object", "How to caption.", properties={"num_predict": of("integer", "Tokens at most; below 1, no bound.")}
        ),
    }
    return {"type": "object", "properties": {**required, **optional, **common}, "required": list(required)}


def _answers(said: dict[str, Schema]) -> dict[str, Schema]:
    reply = record(
        {
            "model": _NAME,
            "created_at": of("string", "When.", format="date-time", examples=["2026-01-31T12:00:00.000000Z"]),
            **said,
            "done": of("boolean", const=True),
            "done_reason": of("string", "length where the caption was cut.", enum=["stop", "length"]),
            "total_duration": of("integer", "Nanoseconds that it took.", examples=[64000000]),
            "eval_count": of("integer", "Tokens of the caption.", examples=[6]),
        }
    )
    return {JSON: reply, LINES: {"description": "Two lines of JSON: the caption, and that it is all."}}
