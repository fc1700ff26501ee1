"""What OpenAI's clients speak, see :mod:`service.routes.chat_completions`."""

from __future__ import annotations

from service.captioning import Captioning
from service.openapi.errors import JSON_BODY, WORK
from service.openapi.operation import EVENTS, JSON, PICTURE, Body, Operation
from service.openapi.options import model_schema
from service.openapi.schema import Schema, listing, of, record

NAME = "OpenAI"
DESCRIPTION = (
    "For OpenAI's clients; GET /v1/models serves them too. The words beside a picture are not read: its caption is the "
    "answer. To a client that sends X-Stainless-Lang, as those libraries do, error is an object with the sentence in "
    "message, on every path."
)


def operations(captioning: Captioning) -> list[Operation]:
    """Chat completions."""
    return [
        Operation(
            "post",
            "/v1/chat/completions",
            "Caption the picture of a message",
            {JSON: _COMPLETION, EVENTS: {"description": "With stream: chunks of the same, then [DONE]."}},
            "The picture is a data: URL in the user's last message; others are not fetched. Fields that steer sampling "
            "or an account change nothing.",
            bodies={JSON: Body(_request(captioning), _EXAMPLE)},
            errors=(*JSON_BODY, *WORK),
        )
    ]


def _request(captioning: Captioning) -> Schema:
    url = of("string", "A data: URL with base64.", pattern="^data:")
    image = record({"type": of("string", const="image_url"), "image_url": record({"url": url})})
    text = record({"type": of("string", const="text"), "text": of("string", "Not read.")})
    message = record(
        {
            "role": of("string", "Whose message it is.", enum=["user", "assistant", "system"]),
            "content": {"oneOf": [of("string", "Not read."), listing({"oneOf": [image, text]})]},
        }
    )
    tokens = of("integer", "Tokens at most; it can only shorten the caption.", minimum=1)
    return {
        "type": "object",
        "properties": {
            "messages": listing(message),
            "model": model_schema(captioning),
            "n": of("integer", "Captions to return, best first.", minimum=1, maximum=captioning.config.max_beam_size),
            "max_tokens": tokens,
            "max_completion_tokens": tokens,
            "stream": of("boolean", "Whether to answer in events."),
            "stream_options": of(
                "object",
                "For a stream.",
                properties={"include_usage": of("boolean", "Whether it ends with the usage.")},
            ),
        },
        "required": ["messages"],
    }


_URL = {"url": f"data:image/jpeg;base64,{PICTURE}"}
_EXAMPLE = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": _URL}]}]}
_CHOICE = record(
    {
        "index": of("integer", "Its place, from 0.", examples=[0]),
        "message": record(
            {
                "role": of("string", const="assistant"),
                "content": of("string", "The caption.", examples=["Two dogs run through the grass."]),
                "refusal": of("null", "Nothing.", const=None),
            }
        ),
        "logprobs": of("null", "Nothing.", const=None),
        "finish_reason": of("string", "length where the caption was cut.", enum=["stop", "length"]),
    }
)
_COMPLETION = record(
    {
        "id": of(
            "string", "With the request's name in the log.", examples=["chatcmpl-5f0c3a52e1b84d0c9f27d41a6be0c3d8"]
        ),
        "object": of("string", const="chat.completion"),
        "created": of("integer", "Seconds since 1970.", examples=[1769860800]),
        "model": of("string", "Whose caption it is.", examples=["words"]),
        "choices": listing(_CHOICE, "Best first."),
        "usage": record(
            {
                "prompt_tokens": of("integer", "A picture counts for nothing.", const=0),
                "completion_tokens": of("integer", "Of all captions.", examples=[6]),
                "total_tokens": of("integer", "The same.", examples=[6]),
            }
        ),
    }
)
