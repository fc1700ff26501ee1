"""Seconds: measured in turns, and what is said of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

MOST_CALLS = 25  # of one contender in one turn


def in_turns(
    actions: Mapping[str, Callable[[bytes], object]], pictures: Sequence[bytes], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds that each call of each action took, on one picture after the other.

    The actions take turns, so that whatever else the machine does hits all of them: in each round each has its turn of
    about ``seconds``, a call at least. A turn begins with a call that does not count, since it finds another's weights
    in the cache; the first round does not count at all.
    """
    lasted: dict[str, float] = {}
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            calls = min(MOST_CALLS, max(1, round(seconds / lasted[name]))) if turn else 1
            for call in range(calls + 1):
                picture = pictures[(turn * MOST_CALLS + call) % len(pictures)]
                lasted[name] = seconds_of(partial(action, picture))
                if turn and call:
                    taken[name].append(lasted[name])
    return taken


def seconds_of(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of the values that so many per cent of them keep to (nearest rank); NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]
