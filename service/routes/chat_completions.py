"""What OpenAI's clients speak: ``POST /v1/chat/completions`` with a picture; ``GET /v1/models`` is in its own module.

The answer is the caption as a sentence; see :mod:`service.conversation` for what is not read. The picture is an
``image_url`` part of the user's last message, a ``data:`` URL. ``n`` asks for the n best captions; ``max_tokens`` and
``max_completion_tokens`` may shorten them. Fields that steer sampling or the account change nothing; all others are
refused by name.

The libraries that OpenAI generates (they send :data:`GENERATED`) show people only what stands in ``error.message``. For
them ``error`` is therefore an object, on all paths; for everybody else it is the text that it is everywhere here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Blueprint, Response, current_app, g, request

from captioner.errors import OptionError
from service.captioning import Captioning
from service.conversation import Answer, answer, choose, last_of_user
from service.errors import RequestError
from service.inputs import read_json
from service.options import read_flag

GENERATED = "X-Stainless-Lang"
KNOWN = (
    *("model", "messages", "n", "max_tokens", "max_completion_tokens"),
    *("stream", "stream_options", "response_format"),
)
IDLE = (
    *("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty", "logit_bias", "stop"),
    *("reasoning_effort", "verbosity"),
    *("user", "safety_identifier", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention"),
)


def blueprint(captioning: Captioning) -> Blueprint:
    """The route over ``captioning``."""
    routes = Blueprint("chat_completions", __name__)

    @routes.post("/v1/chat/completions")
    def complete() -> Response | dict[str, Any]:
        fields = choose(read_json(request, captioning.config), KNOWN, IDLE)
        if fields.get("response_format", {"type": "text"}) != {"type": "text"}:
            raise OptionError('response_format may be {"type": "text"} only: a caption is plain text')
        streamed, count_tokens = read_flag("stream", fields.get("stream", False)), _count_tokens(fields)
        said = answer(
            captioning,
            _images(last_of_user(fields.get("messages"))),
            fields.get("model"),
            most=fields.get("max_completion_tokens", fields.get("max_tokens")),
            n_best=fields.get("n", 1),
        )
        head = {
            "id": f"chatcmpl-{g.request_id}",
            "object": "chat.completion.chunk" if streamed else "chat.completion",
            "created": int(time.time()),
            "model": fields.get("model", captioning.registry.get().info.name),
        }
        if not streamed:
            return {**head, "choices": list(_choices(said)), "usage": _usage(said)}
        chunks = [current_app.json.dumps(head | chunk) for chunk in _chunks(said, count_tokens)]
        return Response("".join(f"data: {chunk}\n\n" for chunk in (*chunks, "[DONE]")), mimetype="text/event-stream")

    @routes.after_app_request
    def speak_their_errors(response: Response) -> Response:
        if response.status_code >= 400 and response.is_json and GENERATED in request.headers:
            reply = response.get_json()
            kind = "invalid_request_error" if response.status_code < 500 else "server_error"
            error = {"message": reply["error"], "type": kind, "param": None, "code": reply["code"]}
            response.set_data(current_app.json.dumps(reply | {"error": error}))
        return response

    return routes


def _images(message: Mapping[str, Any]) -> list[object]:
    """The URLs of the images in a message, of whatever kind: only ``data:`` URLs are read later on."""
    parts = message.get("content")
    urls: list[object] = []
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("type") == "image_url":
            image = part.get("image_url")
            urls.append(image.get("url") if isinstance(image, dict) else image)
    return urls


def _count_tokens(fields: Mapping[str, Any]) -> bool:
    """Whether a stream ends with the usage."""
    options = fields.get("stream_options", {})
    if not isinstance(options, dict):
        raise RequestError('"stream_options" must be a JSON object')
    return read_flag("include_usage", options.get("include_usage", False))


def _choices(said: Answer) -> Iterator[dict[str, Any]]:
    for index, caption in enumerate(said.captions):
        message = {"role": "assistant", "content": caption.sentence, "refusal": None}
        yield {"index": index, "message": message, "logprobs": None, "finish_reason": said.reason(caption)}


def _chunks(said: Answer, count_tokens: bool) -> Iterator[dict[str, Any]]:
    for index, caption in enumerate(said.captions):
        delta = {"role": "assistant", "content": caption.sentence}
        yield {"choices": [{"index": index, "delta": delta, "finish_reason": None}]}
        yield {"choices": [{"index": index, "delta": {}, "finish_reason": said.reason(caption)}]}
    if count_tokens:
        yield {"choices": [], "usage": _usage(said)}


def _usage(said: Answer) -> dict[str, int]:
    """A picture counts for nothing: what is read of it are no tokens."""
    return {"prompt_tokens": 0, "completion_tokens": said.tokens, "total_tokens": said.tokens}
