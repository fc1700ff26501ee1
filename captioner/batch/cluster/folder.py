"""The output: Parquet files, one a part, and a manifest that says what they were made with.

A part's file is there when all of the part is done. It carries a digest of the names that it was made from, so that
another run can tell whether it goes with what there is now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from captioner.batch.cluster.parts import Part
from captioner.batch.cluster.stores import Store, open_store
from captioner.batch.outputs.parquet_table import GROUP, ParquetTable
from captioner.batch.outputs.replacing import OutputError
from captioner.batch.rows import shown
from captioner.batch.settings import differences
from captioner.errors import OptionError

MANIFEST = "manifest.json"
FORMAT = 1
PART = re.compile(r"part-(\d{6,})\.parquet")
KEY = b"captioner"  # of the facts among a file's metadata
AT_ONCE = 16  # files that are looked into


@dataclass(frozen=True)
class Facts:
    """What a part's file says of itself.

    Attributes:
        digest: of the part, see :attr:`captioner.batch.cluster.parts.Part.digest`.
        pictures: how many.
        failed: how many of them have no captions.
    """

    digest: str
    pictures: int
    failed: int


class Folder:
    """The output's folder.

    Args:
        place: its path or URL.

    Raises:
        CaptionerError: it cannot be had.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._store: Store = open_store(place)
        self._settings: Mapping[str, Any] = {}

    def begin(self, settings: Mapping[str, Any], *, afresh: bool) -> dict[int, Facts]:
        """Go on with what is there, or begin.

        Args:
            settings: what the rows depend on, JSON values by what the user calls them.
            afresh: remove what is there first.

        Returns:
            The parts that are done.

        Raises:
            OptionError: what is there was made otherwise.
        """
        self._settings = json.loads(json.dumps(settings))
        names = self._store.names()
        there = {int(found[1]): name for name in names if (found := PART.fullmatch(name))}
        if afresh:
            for name in [*{MANIFEST}.intersection(names), *there.values()]:  # what is half removed has none
                self._store.remove(name)
            there = {}
        elif MANIFEST in names:
            self._check()
            with ThreadPoolExecutor(AT_ONCE) as threads:
                return dict(zip(there, threads.map(self._facts, there.values()), strict=True))
        elif there:
            raise OptionError(
                f"{self._place} holds parts but no {MANIFEST}: name another output, or give --on-existing overwrite"
            )
        self._write_manifest({"complete": False})
        return {}

    def reopen(self) -> None:
        """Note that a part is missing: whatever the manifest said of the whole is true no longer."""
        self._write_manifest({"complete": False})

    def _check(self) -> None:
        with self._store.open(MANIFEST) as file:
            try:
                manifest = json.load(file)
                own, version = dict(manifest["settings"]), manifest["format_version"]
            except (ValueError, KeyError, TypeError) as error:
                raise OptionError(f"{MANIFEST} in {self._place} is damaged: name another output") from error
        if version != FORMAT:
            raise OptionError(f"{self._place} was begun by another version of captioner: name another output")
        different = differences(own, self._settings)
        if different:
            raise OptionError(
                f"{self._place} was begun otherwise: {different}. Give the same options, or name another output"
            )

    def _facts(self, name: str) -> Facts:
        import pyarrow
        from pyarrow import parquet

        with self._store.open(name) as file:
            try:
                return Facts(**json.loads(parquet.read_schema(file).metadata[KEY]))
            except (pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
                raise OutputError(
                    f"{name} in {self._place} is damaged: remove it, and give the same command again"
                ) from error

    def write(self, part: Part, lines: Iterable[str], pictures: int, failed: int) -> None:
        """Write a part's file.

        Args:
            part: what it was made from.
            lines: rows, as JSON.
            pictures: how many they are of.
            failed: how many of these have no captions.

        Raises:
            OutputError: it cannot be written.
        """
        facts = Facts(part.digest, pictures, failed)
        self._store.write(f"part-{part.number:06}.parquet", _encoded(lines, facts))

    def finish(self, parts: Iterable[Facts]) -> None:
        """Note that all is there."""
        parts = list(parts)
        counts = {"pictures": sum(part.pictures for part in parts), "failed": sum(part.failed for part in parts)}
        self._write_manifest({"complete": True, "parts": len(parts), **counts})

    def _write_manifest(self, state: Mapping[str, Any]) -> None:
        content = {"format": "captioner parts", "format_version": FORMAT, **state, "settings": self._settings}
        self._store.write(MANIFEST, json.dumps(content, indent=2).encode() + b"\n")


def _encoded(lines: Iterable[str], facts: Facts) -> bytes:
    """A Parquet file with the columns of :class:`captioner.batch.outputs.parquet_table.ParquetTable`."""
    import pyarrow
    from pyarrow import parquet

    schema = _columns().with_metadata({KEY: json.dumps(asdict(facts))})
    file = pyarrow.BufferOutputStream()
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _tabled(lines):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
    content: bytes = file.getvalue().to_pybytes()
    return content


def _tabled(lines: Iterable[str]) -> Iterator[list[dict[str, Any]]]:
    remaining = iter(lines)
    while rows := [json.loads(line) for line in islice(remaining, GROUP)]:
        yield [row | {name: shown(row[name]) for name in ("image", "error") if name in row} for row in rows]


@cache
def _columns() -> Any:
    from pyarrow import parquet

    empty = BytesIO()
    ParquetTable(Path()).dump([], empty)
    return parquet.read_schema(empty)
