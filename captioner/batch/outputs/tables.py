"""Tables: one file of all pictures, written when the run is over, from its record."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from captioner.batch.outputs.replacing import OutputError, replacing, sweep
from captioner.batch.rows import Details, Entry, Line, Row, is_row
from captioner.config import require


class Table(ABC):
    """A table in one file. It is read and written row by row, so that memory holds no more than a few.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self) -> None:
        """Tell at once what would otherwise be told at the end.

        Raises:
            OptionError: there is no place for it.
            OutputError: nobody may look there.
        """
        try:
            folder = self.path.parent
            require(folder.is_dir(), f"{folder} is no folder: make it first, or name another output")
            require(not self.path.is_dir(), f"{self.path} is a folder: name a file in it")
            require(not self.path.exists() or self.path.is_file(), f"{self.path} is no file: name another output")
            writable = not self.path.exists() or os.access(self.path, os.W_OK)
            require(writable, f"{self.path} is write-protected: change its permissions, or name another output")
            there = os.path.dirname(os.path.realpath(self.path))  # noqa: PTH120 - links in a circle raise nothing
            require(os.access(there, os.W_OK), f"nothing can be written into {there}: name another output")
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}; name another output") from error

    @abstractmethod
    def read(self, file: BinaryIO) -> Iterator[tuple[Row, str]]:
        """The rows of a file, each also as JSON on one line.

        Raises:
            OutputError: it is no such table.
        """

    @abstractmethod
    def dump(self, lines: Iterable[str], file: BinaryIO) -> None:
        """Write rows, which come as JSON."""

    def key(self, name: str) -> str:
        """How rows call a picture of this name."""
        return name

    @property
    def details(self) -> Details:
        """What else its rows tell."""
        return Details()

    def entries(self) -> Iterator[Entry]:
        """What is there already; rows of one picture that stand together make one entry.

        Raises:
            OutputError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                yield from _entries(self.read(file))
        except OSError as error:
            raise OutputError(f"cannot read {self.path}: {error.strerror or error}") from error

    def write(self, lines: Iterable[str]) -> None:
        """Write all rows, in place of what was there.

        Raises:
            OutputError: it cannot be written; what was there is there still.
        """
        sweep(self.path)
        with replacing(self.path) as file:
            self.dump(lines, file)


class JsonLines(Table):
    """JSON Lines: a row a line, as ``captioner caption --json`` prints it."""

    def read(self, file: BinaryIO) -> Iterator[tuple[Row, str]]:
        """See :class:`Table`."""
        for number, data in enumerate(file, start=1):
            try:
                line = data.decode("utf-8").rstrip("\r\n")
                row = json.loads(line) if line else None
            except ValueError as error:
                raise self._not_a_row(number) from error
            if row is not None:
                if not is_row(row):
                    raise self._not_a_row(number)
                yield row, line

    def _not_a_row(self, number: int) -> OutputError:
        return OutputError(f"line {number} of {self.path} is no row of captioner: repair it, or name another output")

    def dump(self, lines: Iterable[str], file: BinaryIO) -> None:
        """See :class:`Table`."""
        for line in lines:
            file.write(f"{line}\n".encode())


def _entries(rows: Iterable[tuple[Row, str]]) -> Iterator[Entry]:
    image: str | None = None
    lines: list[Line] = []
    for row, text in rows:
        line = Line(text, None if "error" in row else row["model"])
        if lines and (row["image"] != image or line.model in [other.model for other in lines]):
            assert image is not None
            yield Entry(image, tuple(lines))
            lines = []
        image = row["image"]
        lines.append(line)
    if image is not None:
        yield Entry(image, tuple(lines))
