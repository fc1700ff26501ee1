"""From the fields of a request to the options of a caption."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from captioner.decoding.options import CHOICES, ONLY_WITH, listed
from captioner.errors import OptionError
from captioner.speech import DEFAULT_VOICE, Voice
from service.config import ServiceConfig


@dataclass(frozen=True)
class CaptionOptions:
    """What a request asks for.

    Attributes:
        model: name of a served model; None for the default one.
        attention: whether to add the best caption's attention weights.
        decoding: fields of :class:`captioner.DecodingOptions` to change from the model's own.
    """

    model: str | None
    attention: bool
    decoding: dict[str, Any]


def parse_options(fields: Mapping[str, object], config: ServiceConfig) -> CaptionOptions:
    """Check the fields of a query, a form (texts) or a JSON object (typed values).

    Raises:
        OptionError: a field is unknown, of the wrong type, over this service's limit, or would be ignored.
    """
    known = ("model", "attention", *DECODING)
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise OptionError(f"Unknown option {reprlib.repr(unknown[0])}; the options are {', '.join(known)}")
    model = fields.get("model")
    if not isinstance(model, str | None):
        raise _wrong("model", "a name", model)
    decoding: dict[str, Any] = {name: read(name, fields[name]) for name, read in DECODING.items() if name in fields}
    for name, most in option_limits(config).items():
        if decoding.get(name, 0) > most:
            raise OptionError(f"{name} may be at most {most} here")
    for name, method in ONLY_WITH.items():  # also where it says what is so anyway
        if name in decoding and decoding.get("method", "beam") != method:
            raise OptionError(f"{name} has a meaning with method={method} only")
    return CaptionOptions(model, read_flag("attention", fields.get("attention", False)), decoding)


def option_limits(config: ServiceConfig) -> dict[str, int]:
    """The most that a request may ask for, by option."""
    return {"beam_size": config.max_beam_size, "n_best": config.max_beam_size, "max_length": config.max_tokens}


def parse_voice(fields: Mapping[str, object]) -> tuple[Voice, dict[str, object]]:
    """The voice that fields ask for, and the other fields.

    Raises:
        OptionError: a field is of the wrong type or out of its range.
    """
    name = fields.get("voice", DEFAULT_VOICE.name)
    if not isinstance(name, str):
        raise _wrong("voice", "a name", name)
    rate, pitch = (_whole(each, fields.get(each, getattr(DEFAULT_VOICE, each))) for each in ("rate", "pitch"))
    others = {field: value for field, value in fields.items() if field not in ("voice", "rate", "pitch")}
    return Voice(name, rate, pitch), others


def _whole(name: str, value: object) -> int:
    if isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return int(value)
        except ValueError:
            pass
    raise _wrong(name, "a whole number", value)


def _number(name: str, value: object) -> float:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise _wrong(name, "a number", value)


def read_flag(name: str, value: object) -> bool:
    """A truth value, or its text.

    Raises:
        OptionError: it is neither.
    """
    text = str(value).lower() if isinstance(value, bool | str) else ""
    if text not in ("true", "false", "1", "0"):
        raise _wrong(name, "true or false", value)
    return text in ("true", "1")


def _choice(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise _wrong(name, listed(CHOICES[name]), value)


def _wrong(name: str, wanted: str, value: object) -> OptionError:
    return OptionError(f"{name} must be {wanted}, not {reprlib.repr(value)}")


DECODING: dict[str, Callable[[str, object], int | float | str]] = {
    "beam_size": _whole,
    "n_best": _whole,
    "max_length": _whole,
    "length_penalty": _number,
    "no_repeat_ngram": _whole,
    "rank": _choice,
    "method": _choice,
    "temperature": _number,
    "top_k": _whole,
    "top_p": _number,
    "seed": _whole,
}
