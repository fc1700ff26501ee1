"""Where commands read and write."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from pathlib import Path

from captioner.errors import OptionError

STDIN = "-"
AS_IT_CAME = "captioner.as_it_came"  # what is done about letters that a stream cannot take


def prepare_streams() -> None:
    """Let names go out whatever they are: as the bytes they came in, or spelt out where the locale lacks a letter."""
    codecs.register_error(AS_IT_CAME, _as_it_came)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started this; print() would take the other one
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=AS_IT_CAME)


def _as_it_came(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


def require_other(output: Path, given: str) -> None:
    """Raise :class:`OptionError` where an output would take the place of an input."""
    same = False
    with contextlib.suppress(OSError, ValueError):  # one of them is no file, yet or at all
        same = output.samefile(given)
    if same:
        raise OptionError(f"{output} is the picture itself: name another file for the output")
