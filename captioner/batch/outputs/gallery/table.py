"""The file of a gallery: a page that needs nothing but itself and the pictures, with a row of JSON on each line."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import BinaryIO

from captioner.batch.outputs.gallery.details import GalleryDetails
from captioner.batch.outputs.replacing import OutputError
from captioner.batch.outputs.tables import Table
from captioner.batch.rows import Row, is_row

OPENING, CLOSING = '<script type="application/json" class="row">', "</script>"
MARK = '<meta name="generator" content="captioner gallery 1">'  # the number tells how rows are written
ROWS = "{rows}\n"


class GalleryTable(Table):
    """A page that shows the rows: open it in a browser, from a disk or a server.

    The pictures stay where they are. Only of those that no browser could open by themselves, such as members of
    archives, there are small copies in the page.
    """

    @property
    def details(self) -> GalleryDetails:
        """See :class:`Table`."""
        return GalleryDetails(self.path.parent)

    def read(self, file: BinaryIO) -> Iterator[tuple[Row, str]]:
        """See :class:`Table`."""
        marked = False
        for number, data in enumerate(file, start=1):
            line = data.strip()
            marked = marked or line == MARK.encode()
            if line.startswith(OPENING.encode()):
                yield self._row(number, line)
        if not marked:
            raise OutputError(f"{self.path} is no gallery of this version of captioner: name another output")

    def _row(self, number: int, line: bytes) -> tuple[Row, str]:
        try:
            text = line.decode("utf-8").removeprefix(OPENING).removesuffix(CLOSING)
            row = json.loads(text)
        except ValueError:
            row = None
        if not is_row(row):
            raise OutputError(f"line {number} of {self.path} is no row of captioner: repair it, or name another output")
        return row, text

    def dump(self, lines: Iterable[str], file: BinaryIO) -> None:
        """See :class:`Table`."""
        before, _, after = _page().partition(ROWS)
        file.write(before.encode())
        for line in lines:
            # In JSON "<" stands within strings alone, and as an escape it can end no element of the page.
            escaped = line.replace("<", "\\u003c")
            file.write(f"{OPENING}{escaped}{CLOSING}\n".encode())
        file.write(after.encode())


def _page() -> str:
    """The page without rows. Its policy lets nothing run but its own script, whatever captions and names say."""
    page, style, script = (_resource(f"page.{ending}") for ending in ("html", "css", "js"))
    for name, value in {
        "{mark}": MARK,
        "{style hash}": _hash(style),
        "{script hash}": _hash(script),
        "{style}": style,
        "{script}": script,
    }.items():
        page = page.replace(name, value)
    return page


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8").strip()


def _hash(text: str) -> str:
    """A source expression of Content Security Policy (level 3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
