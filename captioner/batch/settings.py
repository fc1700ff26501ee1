"""Settings of a run, as JSON values by what the user calls them, and in what two of them differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def differences(own: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """What is asked for now, ``given``, and was otherwise; empty where all is the same."""
    given = json.loads(json.dumps(given))
    names = [name for name in {**own, **given} if own.get(name) != given.get(name)]
    return "; ".join(f"{name} {_was(own.get(name), given.get(name))}" for name in names)


def _was(own: Any, given: Any) -> str:
    if own is None:
        return f"was not set, and is {_shown(given)} now"
    return f"was {_shown(own)}, not {_shown(given)}" if given is not None else f"was {_shown(own)}, and is not set now"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
