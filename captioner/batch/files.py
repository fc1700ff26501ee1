"""The folders of this machine."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from pathlib import Path

from captioner.batch.pictures import Failure, Picture, file_picture, is_archive
from captioner.batch.shards import file_members
from captioner.batch.trees import Listing


class Files:
    """Files by their paths, links included. A path that does not begin with a folder begins at the current one."""

    def contents(self, folder: str) -> Listing:
        """What lies in a folder: files and folders, or links to some; links to nothing count as files.

        Sockets, pipes and devices are passed over: reading them might never end.
        """
        listing = Listing()
        try:
            with os.scandir(folder or os.curdir) as entries:
                for entry in entries:
                    kind = _kind(entry)
                    if kind is not None:
                        (listing.folders if kind else listing.files).append(entry.name)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character in the path
            listing.failure = Failure(f"the folder {folder} does not exist; check the path", "image_not_found")
        except OSError as error:
            reason = error.strerror or "unknown reason"
            listing.failure = Failure(
                f"the folder {folder or os.curdir} cannot be read: {reason}; check that you may", "image_unreadable"
            )
        listing.files.sort()
        listing.folders.sort()
        return listing

    def join(self, folder: str, name: str) -> str:
        """The path of what lies in a folder."""
        return os.path.join(folder, name)  # noqa: PTH118 - the path as it was given, with its ./

    def identity(self, folder: str) -> Hashable:
        """Its device and number there, as links have their own."""
        try:
            status = Path(folder).stat()
        except (OSError, ValueError):
            return None
        return status.st_dev, status.st_ino

    def picture(self, path: str) -> Picture:
        """A file as a picture."""
        return file_picture(path)

    def take(self, path: str) -> Iterator[Picture]:
        """A file as what it is: a picture, or an archive of several."""
        return file_members(path) if is_archive(path) else iter([file_picture(path)])


def _kind(entry: os.DirEntry[str]) -> bool | None:
    """Whether an entry is a folder, or else a file; None for what is neither."""
    try:
        if entry.is_dir():
            return True
        if entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists()):
            return False
    except OSError:  # a link in a circle or into a folder that is closed: as a file it tells so, when it is read
        return False
    return None
