"""CTM, time-marked symbols: the format of NIST's sclite, which Kaldi's alignments are turned into.

A line reads ``utterance channel start duration symbol [confidence]``, times in seconds; ``;;`` begins a comment line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from captioner.errors import DataError
from training.alignments.intervals import Alignment, Interval, in_order, read_text, read_time

# Kaldi's phones say where in their word they stand: at its begin, inside, at its end, or alone.
_POSITION = re.compile(r"(?P<phone>.+)_(?P<position>[BIES])")


def read_ctm(path: Path) -> Iterator[Alignment]:
    """Every utterance of a file. Kaldi's word positions are stripped and give the words, their labels unknown.

    Raises:
        DataError: a line is malformed, the lines of an utterance are scattered or of two channels, or the positions do
            not make words.
    """
    done: set[str] = set()
    for (utterance, _), rows in groupby(_rows(path), key=lambda row: row[0]):
        intervals = in_order((interval for _, interval in rows), path)
        if utterance in done:
            raise DataError(
                f"{path}, line {intervals[0].line}: {utterance} was there before; "
                "keep the lines of an utterance together, and one channel of it"
            )
        done.add(utterance)
        phones, words = _split_positions(intervals, path)
        yield Alignment(utterance, path, phones, words)


def _rows(path: Path) -> Iterator[tuple[tuple[str, str], Interval]]:
    """Utterance and channel of each line, and what it tells."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith(";;"):
            continue
        where, fields = f"{path}, line {number}", line.split()
        if len(fields) not in (5, 6):
            raise DataError(f"{where}: expected 'utterance channel start duration symbol [confidence]'")
        utterance, channel, start, duration, symbol = fields[:5]
        begin = read_time(start, where)
        yield (utterance, channel), Interval(begin, begin + read_time(duration, where), symbol, number)


def _split_positions(intervals: Sequence[Interval], path: Path) -> tuple[tuple[Interval, ...], tuple[Interval, ...]]:
    """Phones without positions, and the words that the positions tell."""
    phones, words = [], []
    first: Interval | None = None  # of the word that has begun
    for one in intervals:
        match = _POSITION.fullmatch(one.label)
        phone, position = match.group("phone", "position") if match else (one.label, "")
        if first is None and position in ("I", "E"):
            raise DataError(f"{path}, line {one.line}: {one.label} goes on with a word that has not begun")
        if first is not None and position not in ("I", "E"):
            raise DataError(
                f"{path}, line {one.line}: {one.label} comes before the end of the word begun at line {first.line}"
            )
        phones.append(Interval(one.start, one.end, phone, one.line))
        if position in ("B", "S"):
            first = one
        if position in ("E", "S") and first is not None:
            words.append(Interval(first.start, one.end, "", first.line))
            first = None
    if first is not None:
        raise DataError(f"{path}, line {first.line}: the word that begins with {first.label} does not end")
    return tuple(phones), tuple(words)
