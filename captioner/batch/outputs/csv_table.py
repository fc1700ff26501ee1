"""CSV: a row a caption, so that a spreadsheet shows them (RFC 4180, but for lines that end as Unix ends them)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, BinaryIO

from captioner.batch.outputs.replacing import OutputError
from captioner.batch.outputs.tables import Table
from captioner.batch.rows import Row, shown, to_line

COLUMNS = ("image", "model", "rank", "text", "score", "words", "error", "code")
FIRST = "1"


class CsvTable(Table):
    """A line for each caption with its rank, from 1; for a picture that failed a line with the error.

    ``words`` is filled where a model's phones are read as words. Tokens are left to the other tables.
    """

    def key(self, name: str) -> str:
        """See :class:`Table`."""
        return shown(name)

    def read(self, file: BinaryIO) -> Iterator[tuple[Row, str]]:
        """See :class:`Table`."""
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        try:
            reader = csv.DictReader(text, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise OutputError(f"{self.path} has other columns than {', '.join(COLUMNS)}: name another output")
            yield from self._rows(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise OutputError(f"{self.path} cannot be read as CSV: {error}; name another output") from error
        finally:
            text.detach()  # the file is its opener's to close

    def _rows(self, reader: csv.DictReader[str]) -> Iterator[tuple[Row, str]]:
        pictures = 0

        def picture(line: dict[str, str]) -> int:
            nonlocal pictures
            pictures += line["rank"] in ("", FIRST)
            return pictures

        for _, group in groupby(reader, picture):
            try:
                row = _row(list(group))
            except (KeyError, TypeError, ValueError) as error:
                raise OutputError(
                    f"the rows of {self.path} up to line {reader.line_num} are none of captioner: repair them, or name "
                    "another output"
                ) from error
            yield row, to_line(row)

    def dump(self, lines: Iterable[str], file: BinaryIO) -> None:
        """See :class:`Table`."""
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        try:
            plain = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            quoting = csv.DictWriter(text, COLUMNS, lineterminator="\n", quoting=csv.QUOTE_ALL)
            plain.writeheader()
            for line in lines:
                # What csv quotes by itself is what would end its own lines, and that is not a carriage return.
                (quoting if "\\r" in line else plain).writerows(_lines(json.loads(line)))
            text.flush()
        finally:
            text.detach()


def _lines(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    image = shown(row["image"])
    if "error" in row:
        yield {"image": image, "error": shown(row["error"]), "code": row.get("code")}
        return
    for rank, caption in enumerate(row["captions"], start=1):
        wanted = {name: caption.get(name) for name in ("text", "score", "words")}
        yield {"image": image, "model": row["model"], "rank": rank, **wanted}


def _row(lines: list[dict[str, str]]) -> Row:
    """The inverse of :func:`_lines`."""
    first = lines[0]
    if None in first.values() or None in first:  # a line too short or too long
        raise ValueError(first)
    if first["error"]:
        return {"image": first["image"], "error": first["error"], "code": first["code"]}
    captions = [
        {"text": line["text"], "score": float(line["score"])} | ({"words": line["words"]} if line["words"] else {})
        for line in lines
    ]
    return {"image": first["image"], "model": first["model"], "captions": captions}
