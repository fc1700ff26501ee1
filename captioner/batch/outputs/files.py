"""A file for each picture."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.batch.choices import APPEND, SKIP
from captioner.batch.outputs.places import Places
from captioner.batch.outputs.replacing import OutputError, sweep
from captioner.batch.pictures import Picture
from captioner.metadata.replacing import replace, state


@dataclass(frozen=True)
class Target:
    """A picture and the path where its file belongs."""

    picture: Picture
    place: Path


Captions = Sequence[tuple[str, Sequence[dict[str, Any]]]]
"""Of a picture: each model's name with what it says, best first, as rows carry it."""


class Files(ABC):
    """What becomes of one picture's captions.

    Args:
        places: where the files lie.
    """

    read_originals = False  # whether writing reads the picture again

    def __init__(self, places: Places) -> None:
        self.places = places
        self._writable: dict[Path, bool] = {}  # one folder, as pictures come folder by folder

    @abstractmethod
    def place(self, picture: Picture) -> Target:
        """Where a picture's file belongs. To be asked once of every picture of a run, in their order.

        Raises:
            OutputError: there is no place for it.
        """

    @abstractmethod
    def exists(self, target: Target) -> bool:
        """Whether there is a caption already, and not of this run."""

    @abstractmethod
    def write(self, target: Target, captions: Captions) -> None:
        """Write the captions of a picture.

        Raises:
            CaptionerError: they cannot be written.
        """

    def sweep(self, target: Target) -> None:
        """Remove what a run that was killed has left of the file."""
        sweep(target.place)

    def require_writable(self, target: Target) -> None:
        """Raise :class:`OutputError` where no file can be written, before a caption is made for it."""
        folder = Path(os.path.realpath(target.place)).parent  # a link is followed
        if folder not in self._writable:
            there = next((one for one in (folder, *folder.parents) if os.path.exists(one)), folder)  # noqa: PTH110
            self._writable = {folder: os.access(there, os.W_OK)}
        if not self._writable[folder]:
            raise OutputError(f"the folder {folder} cannot be written to: see to its permissions, or use --output")

    @staticmethod
    def make_folder(target: Target) -> None:
        """Make the folder of a file."""
        folder = target.place.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder {folder} cannot be made: {error.strerror or error}") from error


class TextFiles(Files):
    """``photo.txt`` beside ``photo.jpg``, as tools that train on pictures read it: a caption a line.

    The second picture by one name (``photo.png``) has its captions in ``photo.png.txt``. With several models each has
    its own file: ``photo.words.txt``.

    Args:
        places: where the files lie.
        models: their names.
        on_existing: one of :data:`captioner.batch.choices.ON_EXISTING`. Lines are appended that are not there yet.
    """

    def __init__(self, places: Places, models: Sequence[str], on_existing: str = SKIP) -> None:
        super().__init__(places)
        self._models = models
        self._on_existing = on_existing

    def place(self, picture: Picture) -> Target:
        """See :class:`Files`; with several models none of their files, but what these are named after."""
        own = self.places.take([self.places.of(picture)], picture)
        wanted = [own.with_name(f"{own.stem}.txt"), own.with_name(f"{own.name}.txt")]
        return Target(picture, self.places.take(wanted, picture))

    def _path(self, place: Path, model: str) -> Path:
        return place if len(self._models) == 1 else place.with_name(f"{place.stem}.{model}.txt")

    def exists(self, target: Target) -> bool:
        """See :class:`Files`."""
        return all(os.path.exists(self._path(target.place, model)) for model in self._models)  # noqa: PTH110

    def write(self, target: Target, captions: Captions) -> None:
        """See :class:`Files`."""
        self.make_folder(target)
        for model, found in captions:
            self._write(self._path(target.place, model), [caption["text"].encode() for caption in found])

    def _write(self, path: Path, lines: Sequence[bytes]) -> None:
        try:
            old = state(path)
            if old is not None and self._on_existing == SKIP:
                return  # one of several models' that had been there before, or this run's own, and whole
            before = path.read_bytes() if self._on_existing == APPEND and old is not None else b""
        except OSError as error:
            raise OutputError(f"{path} cannot be read: {error.strerror or error}; check the file") from error
        there = before.splitlines()
        lines = [line for line in lines if line not in there]
        if before and not before.endswith((b"\n", b"\r")):
            before += b"\n"
        replace(path, before + b"".join(line + b"\n" for line in lines), old)

    def sweep(self, target: Target) -> None:
        """See :class:`Files`."""
        for model in self._models:
            sweep(self._path(target.place, model))
