"""The study of the toys, and what its tests read of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.compare import Workshop

# As small as the recipe of the toys.
TOY_SETTINGS = [
    *("image.height=32", "image.width=32", "value_size=24", "attention_size=8", "embedding_size=16"),
    *("hidden_size=24", "min_count=1", "decoding.max_length=8", "decoding.beam_size=2"),
]
TOY_STUDY = """
title = "Toys"
seeds = [1, 2]
columns = ["CIDEr", "difference", "METEOR", "dangling", "length", "parameters", "seconds", "decoding"]

[base]
name = "toys"
grid_node = "features.4"
dropout = 0.1
average_decay = 0.8
patience = 30

[[base.stages]]
epochs = 5
images_per_batch = 4
decoder_rate = 3e-2

[[variants]]
name = "base"
what = "as it is"

[[variants]]
name = "gru"
what = "another cell"
overrides = ["cell=gru"]

[[variants]]
name = "greedy"
what = "beam 1"
overrides = ["decoding.beam_size=1"]
decode_only = true

[[variants]]
name = "taught"
what = "two stages, taught by others"
stages = [{ epochs = 1 }, { epochs = 1, decoder_rate = 5e-3, distillation = 0.5 }]
teachers = "base"
against = "gru"
seeds = [1]
"""
NAMES = ["base-1", "gru-1", "greedy-1", "base-2", "taught-1", "gru-2", "greedy-2"]


def write_study(folder: Path, text: str = TOY_STUDY) -> str:
    path = folder / "toys.toml"
    path.write_text(text)
    return str(path)


def figures_of(shop: Workshop, run: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(shop.results(run).read_text())
    return figures


def copy_results(whole: Workshop, folder: Path, **changes: Any) -> Path:
    """The figures of the toys, with fields of ``gru-1`` changed."""
    folder.mkdir()
    for run in NAMES:
        (folder / f"{run}.json").write_text(json.dumps(figures_of(whole, run) | (changes if run == "gru-1" else {})))
    return folder


def refuse(*_: object, **__: object) -> None:
    pytest.fail("trained again")


def rows(table: str) -> dict[str, list[str]]:
    """The cells of a table's lines, by the first of each."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    assert len({len(row) for row in cells}) == 1
    return {row[0]: row for row in cells}
