"""A collection in parts, and parts in groups: what is written together, and what is captioned together.

Both depend on the collection and on their sizes alone, never on who captions what and when: so every run groups
pictures as any other would, and a part that is captioned again comes out as it was. How many parts are asked for at a
time, a wave, changes nothing in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from captioner.batch.dealing import Collection
from captioner.batch.pictures import Failure, Picture, is_archive
from captioner.batch.remote import is_url, path_in
from captioner.config import require

DIGITS = 32  # of a digest in hexadecimal
WAVE = 2_000_000  # pictures that Ray Data goes through at a time; the driver holds their names
ARCHIVE = 4096  # pictures that an archive counts as there: who knows


@dataclass(frozen=True, slots=True)  # there may be millions
class Source:
    """A picture, or an archive of several, as all machines may reach it.

    Attributes:
        name: what rows call it, or begin with.
        place: an absolute path or a URL.
        archive: whether it is one.
        failure: why it is out of reach, where that is known already.
    """

    name: str
    place: str
    archive: bool = False
    failure: Failure | None = None


@dataclass(frozen=True)
class Group:
    """What a worker gets at a time: some pictures of a part, or an archive.

    Attributes:
        part: its number.
        start: how many of the part's pictures come before.
        sources: one archive, or pictures.
        last: whether the part ends with it.
    """

    part: int
    start: int
    sources: tuple[Source, ...]
    last: bool

    @property
    def end(self) -> int | None:
        """Where the next group starts; of an archive nobody knows before it is read."""
        return None if self.sources[0].archive else self.start + len(self.sources)


@dataclass(frozen=True)
class Part:
    """What becomes one file.

    Attributes:
        number: from 0.
        sources: one archive, or pictures.
    """

    number: int
    sources: tuple[Source, ...]

    @property
    def digest(self) -> str:
        """The same for the same sources in the same order, and for no others."""
        found = blake2b(digest_size=DIGITS // 2)
        for source in self.sources:
            name = source.name.encode("utf-8", "surrogatepass")
            found.update(f"{len(name)} {source.archive} ".encode() + name)
        return found.hexdigest()

    def groups(self, size: int) -> list[Group]:
        """The part's groups, of ``size`` pictures each but for the last."""
        starts = range(0, len(self.sources), size)
        return [Group(self.number, start, self.sources[start : start + size], start == starts[-1]) for start in starts]


def parts(sources: Iterator[Source], size: int) -> Iterator[Part]:
    """Sources in parts of ``size`` pictures; an archive is a part by itself, and ends the one before it."""
    number = 0
    some: list[Source] = []
    for source in sources:
        if some and (source.archive or len(some) == size):
            yield Part(number, tuple(some))
            number, some = number + 1, []
        if source.archive:
            yield Part(number, (source,))
            number += 1
        else:
            some.append(source)
    if some:
        yield Part(number, tuple(some))


def waves(missing: Iterable[Part]) -> Iterator[list[Part]]:
    """Parts, as many at a time as have :data:`WAVE` pictures together."""
    wave: list[Part] = []
    size = 0
    for part in missing:
        own = ARCHIVE if part.sources[0].archive else len(part.sources)
        if wave and size + own > WAVE:
            yield wave
            wave, size = [], 0
        wave.append(part)
        size += own
    if wave:
        yield wave


def sources(collection: Collection) -> Iterator[Source]:
    """What a collection consists of; archives are not opened.

    Raises:
        CaptionerError: as :func:`captioner.batch.sources.find`.
    """
    require(collection.share.of == 1, "a cluster deals the pictures out itself: leave --shard out")
    return map(_source, collection.units())


def _source(picture: Picture) -> Source:
    name, failure = picture.name, picture.read if isinstance(picture.read, Failure) else None
    place = name if picture.path is None else os.path.abspath(picture.path)  # noqa: PTH100 - links stay as they are
    place = name if place == name else place  # the same object
    own = path_in(name)[1] if is_url(name) else name
    return Source(name, place, failure is None and is_archive(own), failure)
