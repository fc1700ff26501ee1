"""What a run captions: files, folders, patterns, lists, archives and URLs, one stream of pictures from them all."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from stat import S_ISDIR

from captioner.batch.files import Files
from captioner.batch.lists import STDIN, entries, require_list
from captioner.batch.pictures import Failure, Picture, is_archive, is_picture
from captioner.batch.remote import Store, is_url, is_web, path_in
from captioner.batch.shards import is_compressed
from captioner.batch.trees import MAGIC, Tree, matching, walk
from captioner.config import require
from captioner.errors import CaptionerError, ImageError, OptionError

__all__ = ["Picture", "count", "find"]

log = logging.getLogger(__name__)

SLASH = re.compile("/")
SEPARATORS = SLASH if os.sep == "/" else re.compile(r"[\\/]")
WEB_MAGIC = re.compile(r"[*[]")  # there a question mark begins the query

Trees = Callable[[str], Tree]


def tree_of(given: str) -> Tree:
    """What an input lies in: the files of this machine, or a store."""
    return Store(given) if is_url(given) else Files()


def find(
    inputs: Sequence[str], *, recursive: bool = False, lists: Sequence[str] = (), trees: Trees = tree_of
) -> Iterator[Picture]:
    """The pictures of all that is given, in its order, none twice by the same name.

    Folders are read as they are reached: a run may begin before all of a large collection is known. The order of what
    lies in them is told in :mod:`captioner.batch.trees`. Where more is given than one folder, the names of pictures
    found are remembered, at some 100 bytes each; of pictures with equal names the first is taken.

    What cannot be had is a picture that cannot be read, with the name of what is missing: a file, a folder, an
    archive, an entry of a list.

    Args:
        inputs: each one of these:

            - a file: taken whatever its name;
            - a folder: its pictures by their names, see :data:`captioner.batch.pictures.SUFFIXES`, apart from those
              that are hidden; archives in it are not opened;
            - a ``.tar``, ``.tar.gz`` or ``.tgz``: see :func:`captioner.batch.shards.members`;
            - a pattern, where there is no file of that name: see :func:`captioner.batch.trees.matching`;
            - a URL of any of these: see :mod:`captioner.batch.remote`; on the web a folder's ends with a slash;
            - ``-``: a list on standard input.
        recursive: take the folders below a folder too.
        lists: paths of lists, ``-`` for standard input; see :func:`captioner.batch.lists.entries`. They come after the
            inputs. An entry is whatever an input may be, but for patterns: names are taken as they are.
        trees: what each input lies in, see :class:`captioner.batch.trees.Tree`.

    Raises:
        OptionError: at once, where a folder does not exist, a pattern matches nothing, or a list cannot be opened;
            later, where it turns out to be no list.
        DependencyError: at once, where the package for a URL is missing.
    """
    return _found(inputs, recursive, lists, trees, tell=True)


def count(inputs: Sequence[str], *, recursive: bool = False, lists: Sequence[str] = ()) -> int | None:
    """How many pictures :func:`find` finds, as things are now; None where finding out would not be cheap.

    That is so for URLs, for compressed archives, and for standard input, which can be read only once. Else it takes
    as long as the system takes to list the folders: a second for 100,000 files on a disk, more in a network,
    so that one may want a thread for it. Arguments and errors as for :func:`find`.
    """
    if STDIN in (*inputs, *lists):
        return None
    try:
        return sum(1 for _ in _found(inputs, recursive, lists, _near, tell=False))
    except _FarError:
        return None


def _found(
    inputs: Sequence[str], recursive: bool, lists: Sequence[str], trees: Trees, *, tell: bool
) -> Iterator[Picture]:
    require(not isinstance(inputs, str) and not isinstance(lists, str), "give a list of paths, not a single one")
    require([*inputs, *lists].count(STDIN) <= 1, "standard input can be read only once: give - once")
    for given in lists:
        require_list(given)
    ready = [_ready(given, recursive, trees) for given in inputs]
    listed = (_entry(entry, recursive, trees) for entry in chain.from_iterable(map(entries, lists)))
    found = chain(chain.from_iterable(_begun(given, recursive, trees) for given in ready), chain.from_iterable(listed))
    alone = len(inputs) == 1 and not lists and os.path.isdir(inputs[0])  # noqa: PTH112 - a Path's may raise
    return found if alone else _once(found, tell=tell)


def _once(pictures: Iterable[Picture], *, tell: bool) -> Iterator[Picture]:
    """Pictures without those whose name was there before, which is told once."""
    seen: set[bytes] = set()
    repeated = False
    for picture in pictures:
        digest = blake2b(picture.name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            yield picture
        elif tell and not repeated:
            repeated = True
            log.warning("%s comes more than once: of pictures with equal names the first is taken", picture.name)


def _ready(given: str, recursive: bool, trees: Trees) -> str | Iterator[Picture]:
    """An input, after a look at it: its pictures if the look has begun to find them, else as it was given."""
    if given == STDIN:
        return given
    found = _pictures(given, recursive, trees, patterns=True)
    return found if is_url(given) or not os.path.lexists(given) else given


def _begun(ready: str | Iterator[Picture], recursive: bool, trees: Trees) -> Iterator[Picture]:
    if not isinstance(ready, str):
        return ready
    if ready == STDIN:
        return chain.from_iterable(_entry(entry, recursive, trees) for entry in entries(STDIN))
    return _entry(ready, recursive, trees)


def _entry(given: str, recursive: bool, trees: Trees) -> Iterator[Picture]:
    """The pictures of what need not be there any longer, or ever was: that ends no run that has begun."""
    try:
        return _pictures(given, recursive, trees, patterns=False)
    except CaptionerError as error:
        code = "image_not_found" if isinstance(error, OptionError) else "image_unreadable"
        return iter([Picture(given, None, Failure(str(error), code))])


def _pictures(given: str, recursive: bool, trees: Trees, *, patterns: bool) -> Iterator[Picture]:
    """The pictures of one thing that was given. Raises what :func:`find` does, before the first picture."""
    require(bool(given), "an input is empty; give a file, a folder, a pattern, an archive or a URL")
    tree = trees(given)
    return (_behind if isinstance(tree, Store) else _here)(tree, given, recursive, patterns)


def _here(tree: Tree, path: str, recursive: bool, patterns: bool) -> Iterator[Picture]:
    try:
        if S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116 - a Path would forget the slash at its end
            return walk(tree, path, recursive=recursive)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character in the path
        if not os.path.lexists(path):
            if patterns and MAGIC.search(path):
                return _matched(tree, path, 0, recursive)
            require(is_picture(path) or is_archive(path), f"there is no file or folder {path}; check the path")
    except OSError:  # such as a folder on the way that is closed: reading tells so
        pass
    return tree.take(path)


def _behind(store: Tree, url: str, recursive: bool, patterns: bool) -> Iterator[Picture]:
    assert isinstance(store, Store)
    start, path = path_in(url)
    if patterns and (WEB_MAGIC if is_web(url) else MAGIC).search(path):
        return _matched(store, url[: start + len(path)], start, recursive)
    is_named = is_picture(path) or is_archive(path) or is_web(url)
    try:
        if url[: start + len(path)].endswith("/") or (not is_named and store.is_folder(url)):
            found = walk(store, url, recursive=recursive)
            first = next(found, None)
            if first is not None and first.name == url and isinstance(first.read, Failure):
                first.read()  # raises
            return found if first is None else chain([first], found)
    except ImageError as error:
        require(error.code != "image_not_found", str(error))
        return iter([Picture(url, None, Failure(str(error), error.code))])
    return store.take(url)


def _matched(tree: Tree, pattern: str, start: int, recursive: bool) -> Iterator[Picture]:
    """What matches a pattern, whose part before ``start`` has no wildcards whatever stands there."""
    separators = SEPARATORS if isinstance(tree, Files) else SLASH
    first = MAGIC.search(pattern, start)
    assert first is not None
    base = max((found.end() for found in separators.finditer(pattern, start, first.start())), default=start)
    found = matching(tree, pattern[:base], separators.split(pattern[base:]), recursive=recursive)
    one = next(found, None)
    if one is None:
        raise OptionError(f"no picture matches {pattern}; check the pattern")
    return chain([one], found)


class _FarError(Exception):
    """Something cannot be counted cheaply."""


class _NearFiles(Files):
    """Files, but for those that would have to be unpacked to see what they hold."""

    def take(self, path: str) -> Iterator[Picture]:
        if is_archive(path) and is_compressed(path):
            raise _FarError
        return super().take(path)


def _near(given: str) -> Tree:
    if is_url(given):
        raise _FarError
    return _NearFiles()
