"""The formats by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from captioner.batch.choices import CSV, HTML, JSONL, PARQUET, SKIP, TXT, XMP
from captioner.batch.outputs.alt_texts import Embedded, Sidecars
from captioner.batch.outputs.csv_table import CsvTable
from captioner.batch.outputs.files import Files, TextFiles
from captioner.batch.outputs.gallery.table import GalleryTable
from captioner.batch.outputs.parquet_table import ParquetTable
from captioner.batch.outputs.places import Places
from captioner.batch.outputs.tables import JsonLines, Table
from captioner.config import require

TABLES: dict[str, type[Table]] = {JSONL: JsonLines, CSV: CsvTable, PARQUET: ParquetTable, HTML: GalleryTable}
ENDINGS = {".ndjson": JSONL, ".htm": HTML} | {f".{name}": name for name in TABLES}


def make_files(name: str, places: Places, models: Sequence[str], on_existing: str, *, copies: bool) -> Files:
    """What writes a file for each picture.

    Args:
        name: of the format, one that makes files.
        places: where they lie.
        models: names.
        on_existing: one of :data:`captioner.batch.choices.ON_EXISTING`; only text files can be appended to.
        copies: whether alt texts are embedded in copies, in a folder of their own.
    """
    if name == TXT:
        return TextFiles(places, models, on_existing)
    return Sidecars(places) if name == XMP else Embedded(places, copies=copies, skip=on_existing == SKIP)


def format_of(path: Path | None) -> str:
    """The format that a file's name tells; JSON Lines where it tells none."""
    return ENDINGS.get(path.suffix.lower(), JSONL) if path else JSONL


def require_ending(path: Path) -> None:
    """Raise :class:`OptionError` where a file's name tells no format."""
    require(
        path.suffix.lower() in ENDINGS,
        f"the ending of {path} tells no format: choose one of {', '.join(ENDINGS)}, or say which with --format",
    )
