"""Forced alignments: which phone of a recording is said when, in the formats that aligners and their editors write.

============  ======================  =====================================================================
suffix        format                  module
============  ======================  =====================================================================
.TextGrid     Praat, as text          :mod:`training.alignments.textgrid`
.ctm          NIST, Kaldi             :mod:`training.alignments.ctm`
.lab .txt     HTK, xlabel, Audacity   :mod:`training.alignments.labels`
============  ======================  =====================================================================

All are read into :class:`training.alignments.intervals.Alignment`. What becomes of silence and noise is decided in
:mod:`training.alignments.symbols`, which picture an utterance describes in :mod:`training.alignments.pairing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from captioner.errors import DataError
from training.alignments.ctm import read_ctm
from training.alignments.intervals import Alignment
from training.alignments.labels import read_labels
from training.alignments.textgrid import read_textgrid

READERS: dict[str, Callable[[Path], Iterator[Alignment]]] = {
    ".textgrid": read_textgrid,
    ".ctm": read_ctm,
    ".lab": read_labels,
    ".txt": read_labels,
}
SUFFIXES = ", ".join(READERS)


def read_alignments(source: Path) -> Iterator[Alignment]:
    """Read a file, or every file of a folder and its subfolders that has a known suffix, in order of their paths.

    Beside TextGrids or CTM, label files are not read: there, ``.lab`` and ``.txt`` are the aligner's texts and reports.

    Raises:
        DataError: nothing known lies there, a file is malformed, or two utterances have one name.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    known = [path for path in files if path.suffix.lower() in READERS]
    known = [path for path in known if READERS[path.suffix.lower()] is not read_labels] or known
    if not known:
        raise DataError(f"{source} is no alignment: give a folder of {SUFFIXES} files, or one of them")
    sources: dict[str, Path] = {}
    for path in known:
        for alignment in READERS[path.suffix.lower()](path):
            first = sources.setdefault(alignment.utterance, path)
            if first is not path:
                raise DataError(f"the utterance {alignment.utterance} is in both {first} and {path}; keep one")
            yield alignment
