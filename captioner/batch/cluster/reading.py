"""What the cluster's reading tasks do: groups of names become the bytes of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from captioner.batch.cluster.parts import Group, Source
from captioner.batch.pictures import Failure, Picture, read_file
from captioner.batch.remote import Store, is_url
from captioner.batch.shards import members
from captioner.errors import ImageError
from captioner.images import open_file
from captioner.prefetch import batches

THREADS = 8  # that wait for disks and servers
MOST_BYTES = 64 << 20  # of pictures that travel together, the last one aside


@dataclass(frozen=True)
class Filled:
    """Pictures on their way to a worker; attributes as of :class:`captioner.batch.cluster.parts.Group`.

    Attributes:
        names: of the pictures.
        contents: their files' bytes, or why there are none.
    """

    part: int
    start: int
    names: tuple[str, ...]
    contents: tuple[bytes | Failure, ...]
    last: bool

    def pictures(self) -> Iterator[Picture]:
        """The pictures, as a run takes them."""
        for name, content in zip(self.names, self.contents, strict=True):
            yield Picture(name, None, content if isinstance(content, Failure) else partial(bytes, content))


def fill(group: Group, size: int, most: int = MOST_BYTES) -> Iterator[Filled]:
    """Read a group: as one, or as several where its pictures are large or come from an archive.

    Where one ends and the next one begins depends on the pictures, and on which of them could be read: of one that
    could not nobody knows how large it is. Another attempt may cut in other places.

    Args:
        group: what to read.
        size: pictures that are captioned together.
        most: bytes after which no other picture is added.
    """
    names: list[str] = []
    contents: list[bytes | Failure] = []
    start, weight = group.start, 0
    pictures = chain.from_iterable(map(_pictures, group.sources))
    with closing(batches(pictures, _content, THREADS, threads=THREADS)) as read:
        for picture, content in chain.from_iterable(read):
            if names and (len(names) == size or weight >= most):
                yield Filled(group.part, start, tuple(names), tuple(contents), last=False)
                start, weight, names, contents = start + len(names), 0, [], []
            names.append(picture.name)
            contents.append(content)
            weight += 0 if isinstance(content, Failure) else len(content)
    yield Filled(group.part, start, tuple(names), tuple(contents), group.last)


def _pictures(source: Source) -> Iterable[Picture]:
    name, place = source.name, source.place
    if source.failure is not None:
        return [Picture(name, None, source.failure)]
    if is_url(place):
        store = Store(place)
        return store.take(place) if source.archive else [store.picture(place)]
    if source.archive:
        return members(name, lambda: open_file(Path(place)), place)
    return [Picture(name, None, partial(read_file, place))]


def _content(picture: Picture) -> bytes | Failure:
    try:
        return picture.read()
    except ImageError as error:
        where = "" if is_url(picture.name) or error.code != "image_not_found" else SEEN_BY_ALL
        return Failure(f"{error}{where}", error.code)


SEEN_BY_ALL = ", and that all machines of the cluster see it there: on a shared file system, or by a URL"
