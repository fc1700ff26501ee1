"""Files that are planted for a test, and what is found of them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from captioner.batch.sources import Picture, find
from captioner.errors import ImageError

needs_odd_names = pytest.mark.skipif(sys.platform != "linux", reason="here names are Unicode")


def plant(*paths: str) -> None:
    """Files that hold their own names."""
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(path))


def names(*inputs: str, recursive: bool = False, lists: Sequence[str] = ()) -> list[str]:
    return [picture.name for picture in find(inputs, recursive=recursive, lists=lists)]


def refusal(picture: Picture) -> ImageError:
    with pytest.raises(ImageError) as caught:
        picture.read()
    return caught.value


class Input(io.BytesIO):
    """Standard input as it comes out of a pipe, a piece at a time."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__(b"".join(pieces))
        self._pieces = iter(pieces)

    def read1(self, size: int | None = -1, /) -> bytes:
        return next(self._pieces, b"")


def feed(monkeypatch: pytest.MonkeyPatch, *pieces: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Input(*pieces)))
