"""Folders, walked and matched with patterns, whether they are a disk's or a store's.

The order is the same whenever nothing has changed: of each folder its files by name, then its folders by name, each
with all that is below it. Names are compared as Python compares text: by code point. Memory holds the names of one
folder, 8 MB where they are 100,000, of the folders beside the way to it, and a few numbers for each that was seen.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import pairwise
from typing import Protocol

from captioner.batch.pictures import Failure, Picture, is_archive, is_hidden, is_picture

MAGIC = re.compile(r"[*?[]")
ANY_FOLDERS = "**"


@dataclass
class Listing:
    """What lies in one folder: names, sorted; and why these are not all or none, if so."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    failure: Failure | None = None

    @property
    def missing(self) -> bool:
        """Whether there is no such folder."""
        return self.failure is not None and self.failure.code == "image_not_found"


class Tree(Protocol):
    """Files in folders, each by a path that begins as the user gave it."""

    def contents(self, folder: str) -> Listing:
        """What lies in a folder, hidden things too. Does not raise: the listing tells what went wrong."""
        ...

    def join(self, folder: str, name: str) -> str:
        """The path of what lies in a folder."""
        ...

    def identity(self, folder: str) -> Hashable:
        """What a folder shares with itself alone, by whatever path it is reached; None where that is not known."""
        ...

    def picture(self, path: str) -> Picture:
        """A file as a picture."""
        ...

    def take(self, path: str) -> Iterator[Picture]:
        """A file as what it is: a picture, or an archive of several."""
        ...


def walk(tree: Tree, root: str, *, recursive: bool) -> Iterator[Picture]:
    """The pictures of a folder, and of all below it where it is ``recursive``.

    By their names, see :func:`captioner.batch.pictures.is_picture`; all else is passed over. A folder that cannot be
    read is a picture that cannot be read, and ends nothing.
    """
    for folder, listing in _folders(tree, root, recursive):
        for name in listing.files:
            if is_picture(name) and not is_hidden(name):
                yield tree.picture(tree.join(folder, name))
        if listing.failure is not None:
            yield Picture(folder, None, listing.failure)


def matching(tree: Tree, base: str, pattern: Sequence[str], *, recursive: bool) -> Iterator[Picture]:
    """The pictures whose paths match a pattern: ``*``, ``?`` and ``[ ]`` within a name, ``**`` for any folders.

    As in a shell, a name with a leading dot is matched only by a pattern with one. What is matched is taken as if it
    were named: folders are walked, archives read. But a file that is neither picture nor archive is passed over,
    unless the pattern tells how its name ends: ``*`` passes over ``a.txt``, ``*.dat`` takes all that it matches. A
    component that is some file's or folder's very name means that alone.

    Args:
        tree: where to look.
        base: the folder that the pattern starts from.
        pattern: its components; a last one that is empty restricts it to folders.
        recursive: walk the matching folders with all that is below them.
    """
    parts = [part for before, part in pairwise(["", *filter(None, pattern)]) if not before == part == ANY_FOLDERS]
    any_kind = not MAGIC.search(parts[-1].rpartition(".")[2])
    pattern_of = _Pattern(tree, recursive, files=bool(pattern[-1]), any_kind=any_kind)
    return pattern_of.pictures(base, parts, tree.contents(base))


@dataclass(frozen=True)
class _Pattern:
    """What is done with what matches a pattern."""

    tree: Tree
    recursive: bool
    files: bool
    any_kind: bool

    def pictures(self, folder: str, parts: Sequence[str], listing: Listing) -> Iterator[Picture]:
        """The pictures of what matches the components from a folder on, whose listing is at hand."""
        head, rest = parts[0], parts[1:]
        if head == ANY_FOLDERS:
            for below, its_listing in _folders(self.tree, folder, True, listing):
                if rest:
                    yield from self.pictures(below, rest, its_listing)
                else:  # the folders come by themselves
                    yield from self.pictures(below, ["*"], Listing(its_listing.files, failure=its_listing.failure))
            return
        if listing.failure is not None and not listing.missing:
            yield Picture(folder, None, listing.failure)
        if not rest and self.files:
            for name in _fitting(listing.files, head, listing):
                if self.any_kind or is_picture(name) or is_archive(name):
                    yield from self.tree.take(self.tree.join(folder, name))
        for name in _fitting(listing.folders, head, listing):
            path = self.tree.join(folder, name)
            if rest:
                yield from self.pictures(path, rest, self.tree.contents(path))
            else:
                yield from walk(self.tree, path, recursive=self.recursive)


def _fitting(names: Sequence[str], part: str, listing: Listing) -> Iterator[str]:
    """Which names match a component: the very same one if the folder has it, else all that fit."""
    if part in listing.files or part in listing.folders:
        return (name for name in names if name == part)
    dot = part.startswith(".")
    return (name for name in names if (not is_hidden(name) or (dot and not _is_fork(name))) and fnmatch(name, part))


def _is_fork(name: str) -> bool:
    """Whether a file holds what a Mac keeps beside another (AppleDouble), under a name like the other's."""
    return name.startswith("._")


def _folders(tree: Tree, root: str, recursive: bool, listing: Listing | None = None) -> Iterator[tuple[str, Listing]]:
    """A folder and those below it, each once, whatever links lead to it, with what lies in them."""
    seen: set[Hashable] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        identity = tree.identity(folder) if recursive else None
        if identity is not None:
            if identity in seen:
                continue
            seen.add(identity)
        own = listing or tree.contents(folder)
        listing = None
        yield folder, own
        if recursive:
            pending += [tree.join(folder, name) for name in reversed(own.folders) if not is_hidden(name)]
