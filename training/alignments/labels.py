"""Label files, a line a label: HTK's, xlabel's (Festival, WaveSurfer) and Audacity's.

========  ==================================================================================================
HTK       ``start end label [score] [word]``, times in units of 100 ns; the word stands at its first phone,
          as HVite writes it (The HTK Book, section 6.2.1)
xlabel    a header that ends with a line ``#``, then ``end colour label``, times in seconds
Audacity  ``start<TAB>end<TAB>label``, times in seconds
========  ==================================================================================================

xlabel is known by its header. Of the others, Audacity writes its times with a decimal point and HTK without.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from captioner.errors import DataError
from training.alignments.intervals import Alignment, Interval, in_order, read_text, read_time

HTK_UNITS = 1e7  # a second


def read_labels(path: Path) -> Iterator[Alignment]:
    """The one utterance of a label file, named after the file.

    Raises:
        DataError: a line is malformed.
    """
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), start=1) if line.strip()]
    header = next((index for index, (_, line) in enumerate(lines) if line.strip() == "#"), None)
    phones, words = _read_spans(lines, path) if header is None else (_read_xlabel(lines[header + 1 :], path), [])
    yield Alignment(path.stem, path, in_order(phones, path), in_order(words, path))


def _read_xlabel(lines: list[tuple[int, str]], path: Path) -> list[Interval]:
    phones: list[Interval] = []
    for number, line in lines:
        where, fields = f"{path}, line {number}", line.split()
        if len(fields) < 3:
            raise DataError(f"{where}: expected 'end colour label', as the header ends with #")
        phones.append(Interval(phones[-1].end if phones else 0.0, read_time(fields[0], where), fields[2], number))
    return phones


def _read_spans(lines: list[tuple[int, str]], path: Path) -> tuple[list[Interval], list[Interval]]:
    """Phones and words of HTK's and Audacity's lines."""
    rows = [
        (number, [field.strip() for field in line.split("\t")] if "\t" in line else line.split())
        for number, line in lines
        if not line.startswith("\\")  # the frequencies of Audacity's spectral selections
    ]
    units = 1 if any("." in time for _, fields in rows for time in fields[:2]) else HTK_UNITS
    phones: list[Interval] = []
    words: list[Interval] = []
    for number, fields in rows:
        where = f"{path}, line {number}"
        if len(fields) < 3:
            raise DataError(f"{where}: expected a start, an end and a label")
        start, end = (read_time(time, where) / units for time in fields[:2])
        phones.append(Interval(start, end, fields[2], number))
        further = fields[3:]
        if further and _is_number(further[0]):  # the score
            further = further[1:]
        if further:
            words.append(Interval(start, end, further[0], number))
        elif words:
            words[-1] = replace(words[-1], end=end)
    return phones, words


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
