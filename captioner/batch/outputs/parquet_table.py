"""Parquet: the rows of JSON Lines in columns, captions as lists. Needs pyarrow, which the extra ``parquet`` brings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import islice
from typing import Any, BinaryIO

from captioner.batch.outputs.replacing import OutputError
from captioner.batch.outputs.tables import Table
from captioner.batch.rows import Row, is_row, shown, to_line
from captioner.errors import DependencyError

GROUP = 10_000  # rows that are held at a time, and stand together in the file
AT_ONCE = 1000  # rows to read


class ParquetTable(Table):
    """Columns ``image``, ``model``, ``captions``, ``error`` and ``code``, compressed."""

    def check(self) -> None:
        """See :class:`Table`.

        Raises:
            DependencyError: pyarrow is not installed.
        """
        if not find_spec("pyarrow"):
            raise DependencyError("Parquet needs pyarrow: pip install 'captioner[parquet]' brings it")
        super().check()

    def key(self, name: str) -> str:
        """See :class:`Table`."""
        return shown(name)

    def read(self, file: BinaryIO) -> Iterator[tuple[Row, str]]:
        """See :class:`Table`."""
        import pyarrow
        from pyarrow import parquet

        try:
            table = parquet.ParquetFile(file)
            if not table.schema_arrow.equals(_schema()):
                raise OutputError(f"{self.path} has other columns than captioner writes: name another output")
            for batch in table.iter_batches(AT_ONCE):
                for columns in batch.to_pylist():
                    row = _without_nothing(columns)
                    if not is_row(row):
                        raise OutputError(f"a row of {self.path} is none of captioner: name another output")
                    yield row, to_line(row)
        except pyarrow.ArrowException as error:
            raise OutputError(f"{self.path} cannot be read as Parquet: {error}; name another output") from error

    def dump(self, lines: Iterable[str], file: BinaryIO) -> None:
        """See :class:`Table`."""
        import pyarrow
        from pyarrow import parquet

        schema, remaining = _schema(), iter(lines)
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            while rows := [json.loads(line) for line in islice(remaining, GROUP)]:
                for row in rows:
                    row |= {name: shown(row[name]) for name in ("image", "error") if name in row}
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def _schema() -> Any:
    import pyarrow

    text = pyarrow.string()
    caption = {"text": text, "tokens": pyarrow.list_(text), "score": pyarrow.float64(), "words": text}
    columns = {"image": text, "model": text, "captions": pyarrow.list_(pyarrow.struct(list(caption.items())))}
    return pyarrow.schema({**columns, "error": text, "code": text})


def _without_nothing(value: Any) -> Any:
    """What a row has, without the columns that others fill."""
    if isinstance(value, dict):
        return {name: _without_nothing(part) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nothing(part) for part in value]
    return value
