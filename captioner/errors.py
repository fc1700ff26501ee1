"""The errors that a caller may want to tell apart.

Each carries a ``code``: a stable slug for machines, where the message is one plain sentence for people.
The same pair travels unchanged into a JSONL row, an HTTP reply and the command line.
"""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # of terminals, and what ends a line


class CaptionerError(Exception):
    """Anything that captioner refuses or cannot do; the message says what to do about it."""

    default_code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.default_code


class ImageError(CaptionerError):
    """The input is not an image that can be captioned.

    Codes: ``image_not_found``, ``image_unreadable``, ``not_an_image``, ``image_broken``, ``image_too_large``.
    """

    default_code = "image_broken"


class ModelError(CaptionerError):
    """A model directory is missing, broken or of another format.

    Codes: ``model_not_found``, ``model_broken``, ``model_mismatch``.
    """

    default_code = "model_broken"


class WeightsError(CaptionerError):
    """Pretrained encoder weights could not be had; the message names the file, its URL and where to put it."""

    default_code = "weights_unavailable"


class OptionError(CaptionerError, ValueError):
    """A decoding or configuration option has no meaning or an impossible value."""

    default_code = "bad_option"


class DataError(CaptionerError):
    """Training data is missing or malformed; the message names the file and where to get it."""

    default_code = "bad_data"


class SpeechError(CaptionerError):
    """Speaking failed though the request was in order."""

    default_code = "speech_failed"


class DependencyError(CaptionerError):
    """An optional package or program is missing; the message names the extra that brings it."""

    default_code = "missing_dependency"


def one_line(message: str) -> str:
    """A message on one line, whatever the names in it would do to a terminal: control characters are spelt out."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), message)
