"""Where the output's files lie, each as a whole or not at all: in a folder of a disk, or in a store behind a URL."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from captioner.batch.outputs.replacing import PARTIAL, OutputError, make_folder, replacing
from captioner.batch.remote import is_url
from captioner.errors import DependencyError, OptionError

# What these get has begun to be there when all of it has come in.
AT_ONCE = frozenset(["s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"])
# What a file is called that makes room for another one.
REPLACED = re.compile(r"\.(.+)\.[0-9a-f]{8}\.replaced", re.DOTALL)
UNFINISHED = re.compile(f"{PARTIAL.pattern}|{REPLACED.pattern}", re.DOTALL)


class Store(Protocol):
    """Files by their names. Each method raises :class:`captioner.errors.CaptionerError` where it cannot do its work."""

    def names(self) -> list[str]:
        """Of all files. What was left half written is removed; what was to be replaced and was not is there again."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A file to read."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or put another one in its place."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file."""
        ...


def open_store(place: str) -> Store:
    """A folder by its path or its URL; made where there is none.

    Raises:
        CaptionerError: it cannot be made, or a package is missing.
    """
    if place.lower().startswith("file://"):
        return Disk(Path(place[len("file://") :]))
    return Far(place) if is_url(place) else Disk(Path(place))


class Disk:
    """A folder of a file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)

    def names(self) -> list[str]:
        """See :class:`Store`."""
        found = []
        try:
            for path in self._folder.iterdir():
                if PARTIAL.fullmatch(path.name):
                    path.unlink(missing_ok=True)
                elif path.is_file():
                    found.append(path.name)
        except OSError as error:
            raise OutputError(f"{self._folder} cannot be read: {error.strerror or error}") from error
        return found

    def open(self, name: str) -> BinaryIO:
        """See :class:`Store`."""
        path = self._folder / name
        try:
            return path.open("rb")
        except OSError as error:
            raise OutputError(f"{path} cannot be read: {error.strerror or error}") from error

    def write(self, name: str, content: bytes) -> None:
        """See :class:`Store`."""
        with replacing(self._folder / name) as file:
            file.write(content)

    def remove(self, name: str) -> None:
        """See :class:`Store`."""
        path = self._folder / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be removed: {error.strerror or error}") from error


class Far:
    """What is behind a URL, as far as fsspec knows it."""

    def __init__(self, url: str) -> None:
        protocol = url.split("://", 1)[0].lower()
        self._at_once = protocol in AT_ONCE
        self._url = url
        try:
            import fsspec

            self._system, self._root = fsspec.url_to_fs(url)
        except ImportError as error:
            raise DependencyError(
                f"to write to {protocol}:// URLs a package is missing ({error}): pip install 'captioner[remote]' "
                "brings those of S3 and Google's storage"
            ) from error
        except ValueError as error:
            raise OptionError(f"{protocol}:// URLs cannot be written to: {error}; check {url}") from error
        self._try("makedirs", self._root, exist_ok=True)

    def names(self) -> list[str]:
        """See :class:`Store`."""
        self._system.invalidate_cache()
        entries = {
            entry["name"].rstrip("/").rpartition("/")[2]: entry["type"]
            for entry in self._try("ls", self._root, detail=True)
        }
        found = [name for name, kind in entries.items() if kind == "file" and not UNFINISHED.fullmatch(name)]
        for name in entries:
            if old := REPLACED.fullmatch(name):
                if old[1] in found:
                    self.remove(name)
                else:
                    self._try("mv", self._path(name), self._path(old[1]))
                    found.append(old[1])
            elif PARTIAL.fullmatch(name):
                self.remove(name)
        return found

    def open(self, name: str) -> BinaryIO:
        """See :class:`Store`."""
        return cast(BinaryIO, self._try("open", self._path(name), "rb"))

    def write(self, name: str, content: bytes) -> None:
        """See :class:`Store`."""
        if self._at_once:
            self._try("pipe_file", self._path(name), content)
            return
        own = secrets.token_hex(4)
        partial, replaced = f".{name}.{own}.partial", f".{name}.{own}.replaced"
        self._try("pipe_file", self._path(partial), content)
        there = self._try("exists", self._path(name))
        if there:  # not every store moves a file to where one is; killed before the end, the old one comes back
            self._try("mv", self._path(name), self._path(replaced))
        self._try("mv", self._path(partial), self._path(name))
        if there:
            self.remove(replaced)

    def remove(self, name: str) -> None:
        """See :class:`Store`."""
        self._try("rm_file", self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _try(self, what: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._system, what)(*arguments, **options)
        except Exception as error:  # each store has its own exceptions
            said = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise OutputError(
                f"{self._url} cannot be used as output ({what.removesuffix('_file')}): {said}. What is done is kept: "
                "see to it, and give the same command again"
            ) from error
