"""What older versions of captioner wrote, made what this one reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

FORMAT_VERSION = 2
OLDER = 1  # the oldest that can be upgraded

Value = TypeVar("Value")


def upgrade_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a ``config.json`` as this version writes it; what is of no older version comes back as it is."""
    values = dict(values)
    if values.get("format_version") == 1:
        values["format_version"] = FORMAT_VERSION
        if isinstance(values.get("model"), Mapping):
            values["model"] = _upgrade_model(values["model"])
    return values


def _upgrade_model(values: Mapping[str, Any]) -> dict[str, Any]:
    # A grid read position by position had another name, and input feeding implied where to attend.
    values = dict(values)
    if values.get("reader") == "projection":
        values["reader"] = "none"
    if values.get("input_feeding"):
        values["attend"] = "after"
    return values


def upgrade_weights(state: Mapping[str, Value]) -> dict[str, Value]:
    """Weights under the names that this version gives them: where one cell was, there are layers of cells now."""
    return {
        f"cells.0.{name.removeprefix('cell.')}" if name.startswith("cell.") else name: tensor
        for name, tensor in state.items()
    }
