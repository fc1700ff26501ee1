"""Rows of the output, as JSON on one line: what the record keeps and every table is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioner.batch.pictures import Picture
    from captioner.captioner import Captioner
    from captioner.results import Caption

Row = Mapping[str, Any]


class Details:
    """What rows tell besides captions, as JSON values by name: nothing, unless a format wants more."""

    def of_picture(self, picture: Picture, data: bytes) -> Row:  # noqa: ARG002 - for those that want more
        """For a picture's first row. Called by several threads.

        Args:
            picture: itself.
            data: its bytes, which can be decoded.
        """
        return {}

    def of_caption(self, model: Captioner, caption: Caption) -> Row:  # noqa: ARG002
        """For each caption of a model."""
        return {}


@dataclass(frozen=True)
class Line:
    """A row of the output.

    Attributes:
        text: JSON, as :func:`to_line` makes it.
        model: whose captions it holds; None where it holds an error.
        digest: of what the model saw; None where that is not known.
    """

    text: str
    model: str | None = None
    digest: bytes | None = None


@dataclass(frozen=True)
class Entry:
    """What became of a picture.

    Attributes:
        image: its name.
        lines: one a model, or one with an error.
        position: where it stands among all; None: behind them.
    """

    image: str
    lines: tuple[Line, ...]
    position: int | None = None

    @property
    def failed(self) -> bool:
        """Whether there is an error instead of captions."""
        return any(line.model is None for line in self.lines)


def to_line(row: Mapping[str, Any]) -> str:
    """A row as JSON on one line, as readable as it can be.

    A name that is no text (a file's may be any bytes) has its odd bytes as ``\\udcXX``, Python's convention for them:
    that is JSON, and reads back as the same name.
    """
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")


def is_row(row: Any) -> bool:
    """Whether JSON is a row of captions or of an error."""
    if not (isinstance(row, dict) and isinstance(row.get("image"), str)):
        return False
    captions = row.get("captions")
    return isinstance(row.get("error"), str) or (isinstance(row.get("model"), str) and isinstance(captions, list))


def shown(name: str) -> str:
    """A picture's name where only text can be: bytes that are none become ``\\udcXX``."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
