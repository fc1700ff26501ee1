"""Putting a file in the place of another so that there is always one of the two, whole, whatever happens.

The new file is written beside the old one under a hidden name, ``.NAME.XXXXXXXX.partial``, forced to the disk and then
renamed. A process that is killed before that leaves such a file behind, and nothing else.

What is kept of the old file: mode, owner, group, extended attributes (access control lists are such), and its times if
wanted; not the time at which the file system says it was created, which cannot be set. A symbolic link is followed: the
file that it names is replaced, and the link stays. Of a file with several names (hard links) only this name gets the
new file; the others keep the old one, as snapshots that share files with what they are of need it.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from captioner.errors import CaptionerError

LONGEST_NAME = 255  # bytes, on all common file systems
NOT_WRITTEN = "not_written"  # an error's code
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
REASONS = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "the disk quota is used up; make room",
    errno.EFBIG: "the file would be larger than is allowed here; raise the limit",
    errno.EROFS: "the file system is read-only; copy the files to where you may write",
    errno.EACCES: "the folder is write-protected; change its permissions or copy the files to where you may write",
    errno.EPERM: "that is not permitted; change the permissions or copy the files to where you may write",
    errno.ENOENT: "its folder does not exist; make it first",
    errno.ENOTDIR: "its folder is a file; check the path",
    errno.ENAMETOOLONG: "its name is too long; give it a shorter one",
}


def not_written(name: object, reason: str) -> CaptionerError:
    """The error that a file has not been written, and that what was there is there still."""
    return CaptionerError(f"{name} cannot be written: {reason}; nothing was changed", code=NOT_WRITTEN)


def state(path: Path) -> os.stat_result | None:
    """What there is to know about a file before it is read and replaced; None if it does not exist."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def replace(path: Path, content: bytes, old: os.stat_result | None, *, keep_times: bool = False) -> None:
    """Write a file, or put another one in its place.

    Args:
        path: where it belongs; symbolic links are followed.
        content: all of it.
        old: the :func:`state` of the file that the content has been made from; None for a file that must not exist.
        keep_times: of the last change and the last access, to the nanosecond as far as the file system has them.

    Raises:
        CaptionerError: it cannot be written, or has been changed meanwhile. What was there is there unchanged.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(_temporary_name(path.name))
    try:
        if old is not None and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise not_written(path, "it is write-protected; change its permissions")
        try:
            _write(temporary, content, path, old, keep_times)
            _check_unchanged(path, old)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        reason = REASONS.get(error.errno or 0) or f"{error.strerror or error}; check the folder"
        raise not_written(path, reason) from error
    force_to_disk(path.parent)


def _temporary_name(name: str) -> str:
    ending = f".{secrets.token_hex(4)}.partial"
    room = LONGEST_NAME - len(ending) - 1
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return f".{name}{ending}"


def _write(temporary: Path, content: bytes, path: Path, old: os.stat_result | None, keep_times: bool) -> None:
    # Nobody may read the new file who could not read the old one, not even for a moment.
    descriptor = os.open(temporary, CREATE, 0o666 if old is None else stat.S_IMODE(old.st_mode) & 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        if old is not None:
            _keep_owner(temporary, path, old)
            shutil.copystat(path, temporary)
            if keep_times:
                os.utime(temporary, ns=(old.st_atime_ns, old.st_mtime_ns))  # since then the file has been read
            else:
                os.utime(temporary)
        os.fsync(file.fileno())


def _keep_owner(temporary: Path, path: Path, old: os.stat_result) -> None:
    new = temporary.stat()
    if (new.st_uid, new.st_gid) == (old.st_uid, old.st_gid):
        return
    try:
        os.chown(temporary, old.st_uid, old.st_gid)
    except OSError as error:
        raise not_written(path, "it is somebody else's, and would become yours; run this as its owner") from error


def _check_unchanged(path: Path, old: os.stat_result | None) -> None:
    now = state(path)
    was, is_now = ((of.st_ino, of.st_size, of.st_mtime_ns) if of is not None else None for of in (old, now))
    if was != is_now:
        raise not_written(path, "another program has just changed it; try again")


def force_to_disk(folder: Path) -> None:
    """Make sure that the new name is there after a power failure, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
