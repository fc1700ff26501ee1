"""What there is to choose from, by the names that users give it."""

from __future__ import annotations

TABLES = JSONL, CSV, PARQUET, HTML = ("jsonl", "csv", "parquet", "html")
ALT_TEXTS = XMP, EMBED = ("xmp", "embed")
TXT = "txt"
FORMATS = (*TABLES, TXT, *ALT_TEXTS)

ON_EXISTING = SKIP, OVERWRITE, APPEND = ("skip", "overwrite", "append")
