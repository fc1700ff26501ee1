"""Changing some bytes of many: what is taken out, what is put there, and where everything else comes to lie."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import BinaryIO, NamedTuple, Protocol


class Slices(Protocol):
    """Bytes that can be looked at piece by piece: ``bytes``, or a file of which only those pieces are read."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> bytes: ...


class FileSlices:
    """A file as :class:`Slices`. Its length is what it is now; whoever cuts the file off gets shorter pieces."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._length = file.seek(0, os.SEEK_END)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: slice, /) -> bytes:
        start, stop, _ = key.indices(self._length)
        self._file.seek(start)
        return self._file.read(max(0, stop - start))


class Edit(NamedTuple):
    """The bytes from ``start`` to ``end`` become ``new``; where the two are the same, it is put in there."""

    start: int
    end: int
    new: bytes


def apply(data: bytes, edits: Iterable[Edit]) -> bytes:
    """The bytes after edits that do not overlap; several at one place come in the order given."""
    pieces: list[bytes | memoryview] = []
    view, done = memoryview(data), 0
    for start, end, new in sorted(edits, key=lambda edit: edit.start):
        assert done <= start <= end, "edits overlap"
        pieces += [view[done:start], new]
        done = end
    return b"".join([*pieces, view[done:]])


def shifted(position: int, edits: Sequence[Edit]) -> int:
    """Where a byte that stays comes to lie. What is put in at its very place goes before it."""
    return position + sum(len(edit.new) - (edit.end - edit.start) for edit in edits if edit.end <= position)
