"""Praat's TextGrid as text, in the long and the short format: the manual, "TextGrid file formats".

Praat reads strings in double quotes and numbers that stand free, and takes all else for comment. Read that way, the
two formats are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from captioner.errors import DataError
from training.alignments.intervals import Alignment, Interval, in_order, read_text

# In order of preference, in lower case: the Montreal Forced Aligner's, hand-made ones, MAUS's.
PHONE_TIERS = ("phones", "phone", "phonemes", "phoneme", "segments", "segment", "mau")
WORD_TIERS = ("words", "word", "ort-mau")

_TOKEN = re.compile(
    r'"(?P<string>(?:[^"]|"")*+)"'
    r'|(?P<open>")'
    r"|!.*"  # a comment up to the end of its line
    r'|(?P<word>[^\s"]+)'
)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


def read_textgrid(path: Path) -> Iterator[Alignment]:
    """The one utterance of a TextGrid, named after the file.

    Tiers are found by name, :data:`PHONE_TIERS` and :data:`WORD_TIERS`; a speaker may stand before it, as in
    ``anna - phones``. Tiers of points are read over.

    Raises:
        DataError: the file is malformed, has no tier of phones, or several speakers'.
    """
    tiers = list(_tiers(path))
    phones, words = _find(tiers, PHONE_TIERS, path), _find(tiers, WORD_TIERS, path)
    if phones is None:
        names = ", ".join(repr(name) for name, _ in tiers) or "none"
        raise DataError(
            f"{path} has no interval tier of phones; call it {PHONE_TIERS[0]!r}. Its interval tiers: {names}"
        )
    yield Alignment(path.stem, path, in_order(phones, path), in_order(words or (), path))


def _tiers(path: Path) -> Iterator[tuple[str, list[Interval]]]:
    """Each interval tier's name and intervals."""
    values = _Values(path)
    if not values.string("the file type").startswith("ooTextFile") or values.string("the class") != "TextGrid":
        raise DataError(f"{path}, line {values.line}: this is no TextGrid; in Praat, use 'Save as text file'")
    values.number("a start")
    values.number("an end")
    for _ in range(values.count("tiers")):
        kind, name = values.string("a tier's class"), values.string("a tier's name")
        if kind not in ("IntervalTier", "TextTier"):
            raise DataError(f"{path}, line {values.line}: a tier is an IntervalTier or a TextTier, not {kind!r}")
        values.number("a tier's start")
        values.number("a tier's end")
        size = values.count("intervals or points")
        if kind == "IntervalTier":
            yield name, [values.interval() for _ in range(size)]
        else:
            for _ in range(size):
                values.number("a point's time")
                values.string("a point's mark")


def _find(tiers: list[tuple[str, list[Interval]]], names: tuple[str, ...], path: Path) -> list[Interval] | None:
    for name in names:
        found = [tier for tier in tiers if tier[0].rpartition(" - ")[2].strip().lower() == name]
        if len(found) > 1:
            listed = ", ".join(repr(tier) for tier, _ in found)
            raise DataError(f"{path} has {len(found)} tiers of {name}: {listed}; keep one speaker's")
        if found:
            return found[0][1]
    return None


class _Values:
    """The strings and numbers of a file, one after the other; ``line`` is the last one's."""

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, 1
        self._values = self._scan(read_text(path))

    def string(self, what: str) -> str:
        value = next(self._values, None)
        if not isinstance(value, str):
            raise self._unexpected(f"{what} in double quotes", value)
        return value

    def number(self, what: str) -> float:
        value = next(self._values, None)
        if not isinstance(value, float):
            raise self._unexpected(f"{what}, a number", value)
        return value

    def count(self, what: str) -> int:
        value = self.number(f"how many {what} there are")
        if value < 0 or not value.is_integer():
            raise self._unexpected(f"how many {what} there are", value)
        return int(value)

    def interval(self) -> Interval:
        start = self.number("an interval's start")
        line, end = self.line, self.number("an interval's end")
        return Interval(start, end, self.string("an interval's label"), line)

    def _unexpected(self, expected: str, value: object) -> DataError:
        found = "the end of the file" if value is None else repr(value)
        return DataError(f"{self.path}, line {self.line}: expected {expected}, not {found}")

    def _scan(self, text: str) -> Iterator[str | float]:
        scanned = 0
        for token in _TOKEN.finditer(text):
            self.line += text.count("\n", scanned, token.start())
            scanned = token.start()
            if token["open"]:
                raise DataError(f"{self.path}, line {self.line}: the double quote is never closed")
            if token["string"] is not None:
                yield token["string"].replace('""', '"')
            elif token["word"] and _NUMBER.fullmatch(token["word"]):
                yield float(token["word"])
