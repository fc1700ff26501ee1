"""One collection for several runs: each gets its share of the pictures, whatever it runs on."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from captioner.batch.files import Files
from captioner.batch.pictures import Failure, Picture, file_picture, is_archive
from captioner.batch.remote import Store, is_url
from captioner.batch.sources import count, find
from captioner.batch.trees import Tree
from captioner.config import require

SHARE = re.compile(r"(\d{1,5})/(\d{1,5})")


@dataclass(frozen=True)
class Share:
    """Which pictures are this run's: those whose position leaves ``number`` when it is divided by ``of``.

    Positions are counted in the order of :func:`captioner.batch.sources.find`. An archive has one for all its members,
    so that each is opened by one run alone.

    Raises:
        OptionError: there is no such share.
    """

    number: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        require(self.of >= 1, "--shard deals pictures out to one run at least: 0/1")
        require(
            0 <= self.number < self.of,
            f"--shard {self.number}/{self.of}: shards are counted from 0, the last one is {self.of - 1}/{self.of}",
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """``"3/10"``."""
        found = SHARE.fullmatch(text)
        require(found is not None, f"--shard {text}: give its number and how many there are, such as 0/10")
        assert found is not None
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number:05}-of-{self.of:05}"


@dataclass(frozen=True)
class Foreign:
    """A picture that is another run's: nothing is to be done with it, but it takes its place."""

    picture: Picture


@dataclass(frozen=True)
class Collection:
    """What a run is to go through. Arguments as for :func:`captioner.batch.sources.find`."""

    inputs: Sequence[str]
    lists: Sequence[str] = ()
    recursive: bool = False
    share: Share = Share()

    def pictures(self) -> Iterator[Picture | Foreign]:
        """The pictures of this share, and those of others that lie in no archive, in their order.

        Errors as of :func:`captioner.batch.sources.find`.
        """
        if self.share.of == 1:
            return find(self.inputs, recursive=self.recursive, lists=self.lists)
        return self._dealt(self.units())

    def units(self) -> Iterator[Picture]:
        """What is dealt out: pictures, and archives as one each. Errors as of :func:`captioner.batch.sources.find`."""
        return find(self.inputs, recursive=self.recursive, lists=self.lists, trees=_closed)

    def _dealt(self, units: Iterator[Picture]) -> Iterator[Picture | Foreign]:
        for position, unit in enumerate(units):
            closed = is_archive(unit.name) and not isinstance(unit.read, Failure)
            if position % self.share.of != self.share.number:
                if not closed:
                    yield Foreign(unit)
            elif closed:
                yield from find([unit.name])
            else:
                yield unit

    def count(self) -> int | None:
        """How many pictures there are; None where that is not cheap to find out, or cannot be.

        What is no file, such as a pipe with a list, can be read only once, and not for this.
        """
        if any(map(_is_stream, [*self.inputs, *self.lists])):
            return None
        whole = count(self.inputs, recursive=self.recursive, lists=self.lists)
        if whole is None or self.share.of == 1:
            return whole
        return sum(isinstance(found, Picture) for found in self.pictures())


def _is_stream(given: str) -> bool:
    try:
        return stat.S_IFMT(Path(given).stat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR)
    except (OSError, ValueError):  # nothing on this machine
        return False


class _ClosedFiles(Files):
    """Files of which each archive is one."""

    def take(self, path: str) -> Iterator[Picture]:
        return iter([file_picture(path)])


class _ClosedStore(Store):
    def take(self, url: str) -> Iterator[Picture]:
        return iter([self.picture(url)])


def _closed(given: str) -> Tree:
    return _ClosedStore(given) if is_url(given) else _ClosedFiles()
