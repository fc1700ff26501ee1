"""What every format of alignments comes down to: labels, and the time that each of them takes."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from captioner.errors import DataError

# Times of two decimals, of a start and of a duration, can make neighbours overlap by 10 ms without any fault.
ROUNDING = 0.011


@dataclass(frozen=True, slots=True)
class Interval:
    """A label and the time it takes.

    Attributes:
        start, end: seconds.
        label: as written; empty where nothing is said.
        line: where the file has it, from 1; intervals that differ in nothing else are equal.
    """

    start: float
    end: float
    label: str
    line: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Alignment:
    """An utterance.

    Attributes:
        utterance: its name.
        source: the file that it is from.
        phones: in order; whatever lies between two of them is silence.
        words: in order, empty where the format has none. A label is empty where the format tells only the bounds.
    """

    utterance: str
    source: Path
    phones: tuple[Interval, ...]
    words: tuple[Interval, ...] = ()


def in_order(intervals: Iterable[Interval], source: Path) -> tuple[Interval, ...]:
    """The same intervals, found to follow one another.

    Raises:
        DataError: one ends before it starts, or starts before its neighbour ends (see :data:`ROUNDING`).
    """
    found = tuple(intervals)
    for one in found:
        if one.end < one.start:
            raise DataError(
                f"{source}, line {one.line}: {one.label!r} ends at {one.end:g} s, before it starts at {one.start:g} s"
            )
    for before, one in pairwise(found):
        if before.end - one.start > ROUNDING:
            raise DataError(
                f"{source}, line {one.line}: {one.label!r} starts at {one.start:g} s, "
                f"before {before.label!r} ends at {before.end:g} s; times must run forward without overlap"
            )
    return found


def read_time(text: str, where: str) -> float:
    """A time as it is written.

    Raises:
        DataError: it is no finite number.
    """
    try:
        time = float(text)
    except ValueError:
        time = math.nan
    if not math.isfinite(time):
        raise DataError(f"{where}: {text!r} is no time")
    return time


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its byte order mark; its lines end in newlines alone.

    Raises:
        DataError: it cannot be read, or is in another encoding.
    """
    try:
        content = path.read_bytes()
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is neither UTF-8 nor UTF-16 text: {error.reason} at byte {error.start}; save it as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
