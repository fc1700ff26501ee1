"""What the protocols of chat models share: a picture comes in the user's message, its caption is the answer.

Nobody converses here. The words beside a picture are not read, and the captions are found as everywhere else, by the
model's own search: what such clients send unasked to steer the sampling of a large language model (temperature, top_p,
a seed and the like) would only make these captions worse. ``POST /v1/caption`` samples for those who want it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captioner import Caption
from captioner.config import is_whole
from captioner.errors import OptionError
from service.captioning import Captioning
from service.errors import RequestError


@dataclass(frozen=True)
class Answer:
    """What is said about a picture.

    Attributes:
        captions: best first.
        max_length: tokens that a caption could have.
    """

    captions: tuple[Caption, ...]
    max_length: int

    def reason(self, caption: Caption) -> str:
        """Why the caption ends where it does: ``stop``, or ``length`` if it was cut."""
        return "length" if len(caption.tokens) >= self.max_length else "stop"

    @property
    def tokens(self) -> int:
        """How many there are, in all captions."""
        return sum(len(caption.tokens) for caption in self.captions)


def answer(
    captioning: Captioning, images: Sequence[object], model: str | None, most: Any = None, n_best: object = 1
) -> Answer:
    """Caption the only image of a message.

    Args:
        captioning: does it.
        images: as :class:`service.inputs.Upload` holds them.
        model: name of a served model; None for the default one.
        most: tokens at most. It can only shorten: the captions are never longer than the model makes them by itself.
        n_best: captions wanted.

    Raises:
        RequestError: there is no image, or more than one, or it is no base64.
        ImageError, ModelError, OptionError, UnavailableError: as their messages say.
    """
    if not images:
        raise RequestError("The last message brings no image; send one: this service describes pictures, no more")
    own = captioning.registry.get(model).info.decoding.max_length
    if most is not None and not is_whole(most):
        raise OptionError(f"The most tokens must be a whole number, not {reprlib.repr(most)}")
    max_length = min(own, captioning.config.max_tokens, own if most is None else most)
    _, captions = captioning.caption_one(images, {"model": model, "max_length": max_length, "n_best": n_best})
    return Answer(tuple(captions), max_length)


def choose(given: Mapping[str, Any], known: Collection[str], idle: Collection[str]) -> dict[str, Any]:
    """The fields of a request that count here and are not null.

    Args:
        given: all of them.
        known: those that count.
        idle: those that may be there and change nothing.

    Raises:
        OptionError: a field is none of these and asks for something; the message names it.
        RequestError: the model's name is no text.
    """
    for name, value in given.items():
        if value and name not in known and name not in idle:
            raise OptionError(f"{reprlib.repr(name)} is not available here; leave it out")
    if not isinstance(given.get("model"), str | None):
        raise RequestError('"model" must be the name of a model')
    return {name: given[name] for name in known if given.get(name) is not None}


def last_of_user(messages: object) -> Mapping[str, Any]:
    """The user's last message of a conversation.

    Raises:
        RequestError: there is none.
    """
    if isinstance(messages, list):
        for message in reversed(messages):
            if isinstance(message, dict) and message.get("role") == "user":
                return message
    raise RequestError('"messages" must be a list with a message of "role": "user"')
