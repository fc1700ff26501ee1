"""Where the files of pictures lie: beside them, or in a folder that mirrors the tree they were found in."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from captioner.batch.outputs.replacing import OutputError
from captioner.batch.pictures import ARCHIVES, Picture, is_archive
from captioner.batch.trees import MAGIC
from captioner.errors import CaptionerError

# What no file's name can hold; on Windows more than elsewhere.
IMPOSSIBLE = re.compile('[\0-\x1f<>:"|?*\\\\]' if os.name == "nt" else "\0")

SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:(?=//)" if os.name != "nt" else r"^[A-Za-z][A-Za-z0-9+.-]*:")


class Places:
    """Gives each picture of a run a place of its own.

    Args:
        inputs: where pictures are looked for, as they are given.
        folder: the root of the mirrored tree; None: beside each picture.
    """

    def __init__(self, inputs: Sequence[str], folder: Path | None = None) -> None:
        self._roots = sorted({root for name in inputs for root in _roots(name)}, key=len, reverse=True)
        self._folder = folder
        # On disk where it grows, in memory as long as it is small; it ends with the run.
        self._taken = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._taken.execute("CREATE TABLE taken (place BLOB PRIMARY KEY, picture BLOB NOT NULL) WITHOUT ROWID")

    def of(self, picture: Picture) -> Path:
        """Where a copy of the picture itself would lie; its own path where the files lie beside.

        Raises:
            OutputError: it has no place.
        """
        if self._folder is None:
            if picture.path is None:
                raise OutputError(
                    f"{picture.name} is no file of its own that another could lie beside: name a folder with --output"
                )
            return picture.path
        parts = [part for part in mirrored(picture.name, self._roots) if part not in ("", ".", "..")]
        if not parts:
            raise OutputError(f"{picture.name} has no name that a file could have; use --format jsonl")
        return self._folder.joinpath(*(IMPOSSIBLE.sub("_", part) for part in parts))

    def take(self, wanted: Iterable[Path], picture: Picture) -> Path:
        """The first of these places that no other picture of this run has taken.

        Raises:
            OutputError: there is none.
            CaptionerError: nobody can remember any longer which are taken.
        """
        for place in wanted:
            try:
                other = self._holder(place, picture.name)
            except sqlite3.Error as error:
                raise CaptionerError(f"the disk that temporary files lie on cannot be used: {error}") from error
            if other == picture.name or _same_file(other, picture):
                return place
        raise OutputError(f"{place} is the place of {other} already: rename one of the two, or caption them apart")

    def _holder(self, place: Path, name: str) -> str:
        """The name of the picture that has a place: this one, if there was none."""
        key = os.fsencode(os.path.normcase(place))
        found = self._taken.execute("SELECT picture FROM taken WHERE place = ?", (key,)).fetchone()
        if found is None:
            self._taken.execute("INSERT INTO taken VALUES (?, ?)", (key, os.fsencode(name)))
            return name
        return os.fsdecode(found[0])


def mirrored(name: str, roots: Iterable[str]) -> list[str]:
    """The parts of a picture's name below the input that it was found in; of an archive the name without its ending.

    Args:
        name: of the picture.
        roots: what a name may begin with and loses; a longer one first.
    """
    name = _slashes(name)
    for root in roots:
        if name.startswith(root) and name != root:
            name = name[len(root) :]
            break
    name = SCHEME.sub("", name)
    *folders, last = name.split("/")
    return [*map(_without_ending, folders), last]


def _without_ending(folder: str) -> str:
    """What an archive's members lie in is named like it."""
    if not is_archive(folder):
        return folder
    ending = next(ending for ending in ARCHIVES if folder.lower().endswith(ending))
    return folder[: -len(ending)]


def _roots(given: str) -> Iterator[str]:
    """What the names of pictures found by an input may begin with: itself, and the folder that it lies in."""
    given = _slashes(given)
    if magic := MAGIC.search(given):
        fixed = given[: magic.start()]
        yield fixed[: fixed.rfind("/") + 1]
        return
    stripped = given.rstrip("/")
    if not is_archive(stripped):
        yield f"{stripped}/"
    yield stripped[: stripped.rfind("/") + 1]


def _slashes(path: str) -> str:
    return path.replace(os.sep, "/")


def _same_file(name: str, picture: Picture) -> bool:
    """Whether both are one file by two paths."""
    with contextlib.suppress(OSError, ValueError):
        return picture.path is not None and os.path.samefile(name, picture.path)  # noqa: PTH121 - no Path of the other
    return False
