"""One picture of a run, whatever it is reached by, and which names are pictures at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from captioner.errors import ImageError
from captioner.images import DEFAULT_MAX_PIXELS, open_file

# What a folder, a pattern or an archive is searched for: the formats that captioner.images reads, as files of
# photographs and drawings are called. In the command's help and in README.md.
SUFFIXES = frozenset(
    ".apng .avif .avifs .bmp .dds .dib .gif .heic .heics .heif .heifs .hif .icns .ico .j2c .j2k .jfif .jp2 .jpc .jpe "
    ".jpeg .jpf .jpg .jpx .mpo .pbm .pcx .pfm .pgm .png .pnm .ppm .psd .qoi .sgi .tga .tif .tiff .webp".split()
)
ARCHIVES = (".tar", ".tar.gz", ".tgz")

# Folders that systems keep for themselves: resource forks in archives made on a Mac, thumbnails (Synology), deleted
# files (Synology, Windows) and what else lies at the root of a disk.
SYSTEM_FOLDERS = frozenset(
    ["__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"]
)

# A file of more bytes is not read. The most pixels that are taken need as many, at four bytes each and uncompressed.
MAX_BYTES = 4 * DEFAULT_MAX_PIXELS

READ_AT_ONCE = 1 << 20  # bytes


@dataclass(frozen=True)
class Picture:
    """One picture of a run.

    Attributes:
        name: what its row calls it: the path as it was given, joined with what lies below it;
            ``shard.tar/member.jpg``; a URL.
        path: its file, where it has one of its own on this machine; else None.
        read: its bytes. Called from any thread, and as often as one likes. Raises :class:`ImageError`:
            ``image_not_found``, ``image_unreadable``, ``image_too_large``.
        release: lets go of bytes that it holds; it is not read again.
    """

    name: str
    path: Path | None
    read: Callable[[], bytes]
    release: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Failure:
    """Reads a picture that is known to be out of reach: raises an :class:`ImageError` that says why."""

    message: str
    code: str

    def __call__(self) -> bytes:
        """Raise it."""
        raise ImageError(self.message, code=self.code)


class Readable(Protocol):
    """A binary file, or what is read like one."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


def failed(name: str, message: str, code: str = "image_unreadable") -> Picture:
    """Something in place of pictures that cannot be had, so that a run goes on and tells of it."""
    return Picture(name, None, Failure(message, code))


def file_picture(path: str) -> Picture:
    """A file of this machine by its path; that it exists is found out as it is read."""
    return Picture(path, Path(path), partial(read_file, path))


def read_file(path: str) -> bytes:
    """The bytes of a file.

    Raises:
        ImageError: it does not exist, cannot be read, or has more than :data:`MAX_BYTES`, which is found out before
            they are read where a file knows its size.
    """
    with open_file(Path(path)) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise too_large(path)
        try:
            return read_all(file, path)
        except OSError as error:
            reason = error.strerror or "unknown reason"
            raise ImageError(f"{path} cannot be read: {reason}; check the disk", code="image_unreadable") from error


def read_all(file: Readable, name: str) -> bytes:
    """What is left of a file, read in pieces, so that memory holds what there is and not what is allowed.

    Raises:
        ImageError: it is more than :data:`MAX_BYTES`.
    """
    pieces, left = [], MAX_BYTES
    while piece := file.read(READ_AT_ONCE):
        left -= len(piece)
        if left < 0:
            raise too_large(name)
        pieces.append(piece)
    return b"".join(pieces)


def too_large(name: str) -> ImageError:
    """The error of a file with too many bytes."""
    return ImageError(
        f"{name} is too large: a picture's file may have {MAX_BYTES:,} bytes; use a smaller one", code="image_too_large"
    )


def is_picture(name: str) -> bool:
    """Whether a file's name ends as those of pictures do, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - a hundred thousand times


def is_archive(name: str) -> bool:
    """Whether a file's name ends as those of archives that are read do, in upper or lower case."""
    return name.lower().endswith(ARCHIVES)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is passed over unless somebody names it: ``.x``, ``._x``, a system's own folder.

    What a run writes before it is whole has such a name too.
    """
    return name.startswith(".") or name in SYSTEM_FOLDERS
