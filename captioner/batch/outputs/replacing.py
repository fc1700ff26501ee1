"""Tables that are there as a whole or not at all, as :mod:`captioner.metadata.replacing` has it for smaller files.

A table is written row by row under a hidden name in its folder, forced to the disk, and then renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from captioner.errors import CaptionerError, OptionError
from captioner.metadata.replacing import LONGEST_NAME, NOT_WRITTEN, force_to_disk

# How captioner.metadata.replacing calls unfinished files, too; of a long name there is the beginning.
PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial", re.DOTALL)
LONGEST_LETTER = 4  # bytes, in UTF-8
ROOM = LONGEST_NAME - len("..01234567.partial")
# After these nothing can be written any longer, whatever the picture.
FATAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})


class OutputError(CaptionerError):
    """The output cannot be written, or not be read where it is to be gone on with."""

    default_code = "output_failed"


def is_fatal(error: BaseException) -> bool:
    """Whether an error that came of writing one file would come of writing any other."""
    of_writing = isinstance(error, OutputError) or (isinstance(error, CaptionerError) and error.code == NOT_WRITTEN)
    return of_writing and isinstance(error.__cause__, OSError) and error.__cause__.errno in FATAL


def make_folder(folder: Path) -> None:
    """Make the folder of an output, and those around it.

    Raises:
        OptionError: it is a file.
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OptionError(f"{folder} is a file: name a folder for the output") from error
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror or error}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` when the context ends well, with the rights of what was there.

    Raises:
        OutputError: it cannot be written; what was there is there still.
    """
    path = Path(os.path.realpath(path))  # a link stays, and leads to the new file
    beginning = os.fsdecode(os.fsencode(path.name)[:ROOM])
    partial = path.with_name(f".{beginning}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            with contextlib.suppress(FileNotFoundError):
                partial.chmod(path.stat().st_mode & 0o777)
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        force_to_disk(path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. What is done is kept: see to the disk, and give the same "
            "command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def sweep(path: Path) -> None:
    """Remove unfinished versions of a file, which runs that were killed have left: beside what a link leads to."""
    path = Path(os.path.realpath(path))
    name = os.fsencode(path.name)
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if found := PARTIAL.fullmatch(entry.name):
                own, whole = os.fsencode(found[1]), os.fsencode(found[0])
                if own == name or (len(whole) > LONGEST_NAME - LONGEST_LETTER and name.startswith(own)):
                    Path(entry.path).unlink()
