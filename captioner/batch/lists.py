"""Lists of pictures: one path a line, or paths that each end with a null character, as ``find -print0`` writes them."""

from __future__ import annotations

import io
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from captioner.errors import ImageError, OptionError
from captioner.images import open_file

STDIN = "-"
BOM = b"\xef\xbb\xbf"  # some editors put it before UTF-8
BOMS_OF_UTF16 = (b"\xff\xfe", b"\xfe\xff")
LONGEST = 1 << 16  # bytes; no system has longer paths
READ_AT_ONCE = 1 << 16  # bytes


def require_list(given: str) -> None:
    """Raise :class:`OptionError` where a list cannot be opened.

    A pipe is not: it can be opened once, and whoever writes into it would be told that nobody reads it any longer.
    """
    if given != STDIN and not _is_pipe(given):
        with _opened(given):
            pass


def _is_pipe(given: str) -> bool:
    try:
        return stat.S_ISFIFO(Path(given).stat().st_mode)
    except (OSError, ValueError):  # opening it tells why
        return False


def entries(given: str) -> Iterator[str]:
    """The paths of a list, as they come.

    It is UTF-8, with or without a mark that says so; bytes that are not are kept as :func:`os.fsdecode` does. Lines
    may end as on Windows. Empty ones are passed over, and there are no comments: whatever stands there is a path. If
    the beginning has a null character, then these end the paths, which may have line feeds in them.

    Args:
        given: the list's path; ``-`` is standard input.

    Raises:
        OptionError: it cannot be opened, or is no such list.
    """
    with _standard_input() if given == STDIN else _opened(given) as file:
        for entry in _split(file, "standard input" if given == STDIN else given):
            path = entry.decode("utf-8", "surrogateescape")
            if path:
                yield path


def _opened(given: str) -> BinaryIO:
    try:
        return open_file(Path(given))
    except ImageError as error:
        raise OptionError(f"the list cannot be read: {error}") from error


def _standard_input() -> AbstractContextManager[BinaryIO]:
    """Standard input without a buffer of Python's: a thread that waits in one keeps Python from ending."""
    try:
        return cast(BinaryIO, open(sys.stdin.fileno(), "rb", buffering=0, closefd=False))
    except io.UnsupportedOperation:  # it has been replaced by something in memory
        return nullcontext(sys.stdin.buffer)


def _split(file: BinaryIO, name: str) -> Iterator[bytes]:
    # As much as there is: a path is to be had as soon as it has been written.
    some = partial(getattr(file, "read1", file.read), READ_AT_ONCE)
    chunk = some()
    if chunk.startswith(BOMS_OF_UTF16):
        raise OptionError(f"the list {name} is UTF-16; save it as UTF-8")
    lines = b"\0" not in chunk
    separator, ending = (b"\n", b"\r") if lines else (b"\0", b"")
    rest, first = b"", True
    while chunk:
        *whole, rest = (rest + chunk).split(separator)
        for entry in whole:
            yield entry.removeprefix(BOM if first else b"").removesuffix(ending)
            first = False
        if len(rest) > LONGEST or (lines and b"\0" in chunk):
            raise OptionError(f"{name} is no list of paths: give one path a line, or end each with a null character")
        chunk = some()
    yield rest.removeprefix(BOM if first else b"").removesuffix(ending)
