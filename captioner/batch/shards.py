"""The pictures of ``.tar`` archives, one after another as they lie there: the shards of WebDataset, or a folder packed.

One pass, with no more than a member in memory. Of an archive on this machine that is not compressed not even that:
a picture is read from its place in the file, when somebody wants it. Of all others the pictures hold their bytes.

The format is POSIX pax, with its forerunners (IEEE Std 1003.1, "pax", sections ustar and pax interchange format), as
:mod:`tarfile` reads it; compressed, it is gzip (RFC 1952).
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from captioner.batch.pictures import MAX_BYTES, READ_AT_ONCE, Picture, failed, is_hidden, is_picture, too_large
from captioner.errors import ImageError
from captioner.images import open_file

GZIP_MAGIC = b"\x1f\x8b"
LARGEST_HEADER = 1 << 20  # bytes of a name or of other notes on a member, which are read at once

NOTES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


def is_compressed(name: str) -> bool:
    """Whether an archive has to be unpacked to see what it holds, by its name."""
    return not name.lower().endswith(".tar")


def file_members(path: str) -> Iterator[Picture]:
    """The pictures of an archive on this machine; see :func:`members`."""
    return members(path, lambda: open_file(Path(path)), path)


def members(name: str, open_archive: Callable[[], BinaryIO], path: str | None = None) -> Iterator[Picture]:
    """The pictures of an archive, in its order; members that are no pictures by their names are passed over.

    Folders in the archive are part of a picture's name; what is hidden, or in a folder that is, is passed over. A
    picture that is too large, or only a link to another member, is one that cannot be read. Where the archive is
    damaged or ends too early, all that comes before is there, and then one picture by the archive's own name that
    cannot be read: so that what is missing is missed.

    Args:
        name: the archive's.
        open_archive: opens it, from its start; raises :class:`ImageError` or ``OSError``.
        path: its file on this machine, if it is one.
    """
    try:
        with open_archive() as file:
            packed = cast(io.BufferedReader, file).peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
            if packed:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield from _members(name, cast(BinaryIO, unpacked), None)
                    while unpacked.read(READ_AT_ONCE):  # at its end there is a checksum of all
                        pass
            else:
                yield from _members(name, file, path)
    except ImageError as error:
        yield failed(name, str(error), error.code)
    except OSError as error:
        if error.errno is None:  # not the system's but the decompressor's
            yield _damaged(name, error)
        else:
            yield failed(name, f"the archive {name} cannot be read: {error.strerror}; check the file")
    except Exception as error:  # what is no archive can be anything
        yield _damaged(name, error)


def _damaged(name: str, error: Exception) -> Picture:
    return failed(
        name,
        f"the archive {name} is damaged or incomplete ({error}): what comes next in it is lost; copy it again",
        "image_broken",
    )


def _members(name: str, file: BinaryIO, path: str | None) -> Iterator[Picture]:
    mode: Literal["r|", "r:"] = "r|" if path is None else "r:"
    # Of a stream no more is read than is asked for: what is whole before damage is to be found.
    with tarfile.open(fileobj=file, mode=mode, bufsize=tarfile.BLOCKSIZE, tarinfo=_Header) as archive:
        size = None if path is None else os.fstat(file.fileno()).st_size
        reached = -1
        while (member := archive.next()) is not None:
            cast(Any, archive).members.clear()  # else they would be kept until the end
            if member.offset <= reached or member.size < 0:
                raise tarfile.ReadError("a header leads backwards")  # and round and round
            reached = member.offset
            in_place = member.isreg() and member.sparse is None  # its bytes lie there as they are
            if size is not None and in_place and member.offset_data + member.size > size:
                raise tarfile.ReadError("unexpected end of data")
            inner = [part for part in member.name.split("/") if part not in ("", ".", "..")]
            if inner and is_picture(inner[-1]) and not any(map(is_hidden, inner)):
                own = "/".join([name, *inner])
                if member.isreg():
                    yield _picture(own, archive, member, path)
                elif member.issym() or member.islnk():
                    yield failed(own, f"{own} is a link to {member.linkname}: of an archive only files are read")


def _picture(name: str, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str | None) -> Picture:
    if member.size > MAX_BYTES:
        error = too_large(name)
        return failed(name, str(error), error.code)
    if path is not None and member.sparse is None:
        return Picture(name, None, partial(_read_part, name, path, member.offset_data, member.size))
    content = archive.extractfile(member)
    assert content is not None  # as the member is a file
    held = _Held(content.read())
    return Picture(name, None, held.read, held.release)


class _Held:
    """Bytes that can be had once: what is unpacked goes by."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    def read(self) -> bytes:
        assert self._data is not None, "it has been released"
        return self._data

    def release(self) -> None:
        self._data = None


def _read_part(name: str, path: str, start: int, size: int) -> bytes:
    """A member's bytes, from its place in the archive.

    Raises:
        ImageError: the archive is gone or cannot be read, or has become shorter.
    """
    try:
        with open_file(Path(path)) as file:
            file.seek(start)
            data = file.read(size)
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise ImageError(f"{name} cannot be read: {reason}; check the disk", code="image_unreadable") from error
    if len(data) != size:
        raise ImageError(f"{name} cannot be read: the archive was changed; start anew", code="image_unreadable")
    return data


class _Header(tarfile.TarInfo):
    """A member's header, where :mod:`tarfile` is not to take a damaged one for the archive's end.

    The end is a block of zeros. Whatever else is no header, nothing at all included, is damage or a part cut off.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Header:
        """Read the next header."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """A header from its bytes, unless it announces what nobody should believe."""
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in NOTES and header.size > LARGEST_HEADER):
            raise tarfile.ReadError(f"a header announces {header.size} bytes")
        return header
