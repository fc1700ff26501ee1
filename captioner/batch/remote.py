"""Pictures behind URLs: ``s3://``, ``gs://``, ``https://`` and whatever else fsspec knows.

fsspec is imported with the first URL and not before. What a store asks for, such as credentials or the address of its
server, it takes from where its users keep that: the environment, the store's own files, or fsspec's configuration.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext
from errno import EINVAL
from functools import partial
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote, unquote

from captioner.batch.files import Files
from captioner.batch.pictures import MAX_BYTES, Failure, Picture, is_archive, read_all, too_large
from captioner.batch.shards import members
from captioner.batch.trees import Listing
from captioner.errors import DependencyError, ImageError, OptionError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: C:// is a disk
WEB = ("http", "https")
OF_THE_EXTRA = (*WEB, "s3", "s3a", "gs", "gcs")

UNQUOTED = "!$&'()*+,;=:@"  # in a part of a URL's path, beside letters, digits and -._~ (RFC 3986, 3.3)

# Seconds, for servers that are asked over HTTP; the others have times of their own.
TIME_TO_CONNECT = 30.0
TIME_TO_READ = 60.0  # without a single byte


def is_url(given: str) -> bool:
    """Whether this is a URL rather than a path."""
    return URL.match(given) is not None


def is_web(url: str) -> bool:
    """Whether a URL is one of the web, where nobody knows what are files and what are folders."""
    return url.split("://", 1)[0].lower() in WEB


def path_in(url: str) -> tuple[int, str]:
    """Where in a URL the path begins, and the path: what comes after the server or the bucket, without a query."""
    server = url.index("://") + len("://")
    start = url.find("/", server) + 1 or len(url)
    end = min((at for mark in "?#" if is_web(url) and (at := url.find(mark, start)) >= 0), default=len(url))
    return start, url[start:end]


class Store:
    """What lies behind URLs of one kind on one server, by its URLs: a :class:`captioner.batch.trees.Tree`.

    Args:
        url: any of them.

    Raises:
        DependencyError: a package is missing.
        OptionError: nobody knows such URLs.
    """

    def __init__(self, url: str) -> None:
        self._system = _filesystem(url)
        self._is_web = is_web(url)
        self._is_local = url.lower().startswith(("file://", "local://"))
        # What is not made for several callers at a time has one.
        several = getattr(self._system, "async_impl", False) or self._is_local
        self._turn: AbstractContextManager[object] = nullcontext() if several else threading.Lock()

    def is_folder(self, url: str) -> bool:
        """Whether a folder lies there, or else a file.

        Raises:
            ImageError: neither, or nobody can tell.
        """
        try:
            with self._turn:
                return bool(self._system.info(self._inner(url))["type"] == "directory")
        except Exception as error:
            raise _explained(url, error) from error

    def contents(self, folder: str) -> Listing:
        """What lies in a folder; of the web, what its page has links to."""
        if self._is_local:  # whose links fsspec takes for neither files nor folders
            return Files().contents(self._inner(folder))
        listing = Listing()
        try:
            with self._turn:
                entries = self._system.ls(self._inner(folder), detail=True)
        except Exception as error:
            explained = _explained(folder, error)
            listing.failure = Failure(str(explained), explained.code)
            return listing
        start = self._inner(folder).rstrip("/") + "/"
        kinds = {"file": listing.files, "directory": listing.folders}
        for entry in entries:
            path = entry["name"].rstrip("/")
            name = path.removeprefix(start)
            if name and name != path and "/" not in name and entry["type"] in kinds:  # not the folder itself
                kinds[entry["type"]].append(unquote(name, errors="surrogateescape") if self._is_web else name)
        listing.files.sort()
        listing.folders.sort()
        return listing

    def join(self, folder: str, name: str) -> str:
        """The URL of what lies in a folder."""
        if self._is_web:
            name = quote(name, safe=UNQUOTED, errors="surrogateescape")
        return f"{folder}{name}" if folder.endswith("/") else f"{folder}/{name}"

    def identity(self, folder: str) -> Hashable:
        """None: a store has no links. But those of this machine's files may go in circles."""
        return Files().identity(self._inner(folder)) if self._is_local else None

    def picture(self, path: str) -> Picture:
        """A file as a picture."""
        own = Path(self._inner(path)) if self._is_local else None
        return Picture(path, own, partial(self._read, path))

    def take(self, path: str) -> Iterator[Picture]:
        """A file as what it is: a picture, or an archive of several."""
        if is_archive(path_in(path)[1]):
            return members(path, partial(self._open, path))
        return iter([self.picture(path)])

    def _inner(self, url: str) -> str:
        return str(self._system._strip_protocol(url))  # fsspec has no other name for it

    def _read(self, url: str) -> bytes:
        try:
            if self._is_web:  # a server need not heed which part was asked for
                with self._stream(url) as file:
                    return read_all(file, url)
            with self._turn:
                data = bytes(self._system.cat_file(self._inner(url), start=0, end=MAX_BYTES + 1))
        except ImageError:
            raise
        except Exception as error:  # each store has its own exceptions
            # Here some give no bytes; others say that there is no such part: HTTP's 416, or s3fs' name for it.
            if (_status(error) == 416 or getattr(error, "errno", 0) == EINVAL) and self._is_empty(url):
                return b""
            raise _explained(url, error) from error
        if len(data) > MAX_BYTES:
            raise too_large(url)
        return data

    def _is_empty(self, url: str) -> bool:
        """Whether a file has no bytes, so that it has no part either that one could ask for."""
        try:
            with self._turn:
                return bool(self._system.info(self._inner(url))["size"] == 0)
        except Exception as error:
            raise _explained(url, error) from error

    def _open(self, url: str) -> BinaryIO:
        try:
            file = self._stream(url) if self._is_web else self._system.open(self._inner(url), "rb")
            return cast(BinaryIO, BufferedReader(_Told(url, file)))
        except Exception as error:
            raise _explained(url, error) from error

    def _stream(self, url: str) -> Any:
        """The body of one reply, as it comes in. With a size, any size, the server is not asked for one before."""
        return self._system.open(url, "rb", block_size=0, size=1)


class _Told(RawIOBase):
    """A store's file whose errors are told in plain words."""

    def __init__(self, url: str, file: Any) -> None:
        self._url, self._file = url, file

    def readable(self) -> bool:
        """True: it is for nothing else."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read at most as much as fits."""
        room = memoryview(buffer).cast("B")
        try:
            data = self._file.read(len(room))
        except Exception as error:
            raise _explained(self._url, error) from error
        room[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close both."""
        if not self.closed:
            self._file.close()
        super().close()


def _filesystem(url: str) -> Any:
    protocol = url.split("://", 1)[0].lower()
    try:
        import fsspec

        if protocol in WEB:
            from aiohttp import ClientTimeout

            timeout = ClientTimeout(total=None, sock_connect=TIME_TO_CONNECT, sock_read=TIME_TO_READ)
            return fsspec.filesystem(protocol, client_kwargs={"timeout": timeout})
        options = fsspec.get_filesystem_class(protocol)._get_kwargs_from_urls(url)  # such as the server of sftp://
        return fsspec.filesystem(protocol, **options, use_listings_cache=False)
    except ImportError as error:
        advice = (
            "pip install 'captioner[remote]' brings it"
            if protocol in OF_THE_EXTRA or error.name == "fsspec"
            else "install it with pip"
        )
        raise DependencyError(f"to read {protocol}:// URLs a package is missing ({error}): {advice}") from error
    except Exception as error:
        raise OptionError(f"{protocol}:// URLs cannot be read: {_said(error)}; check {url}") from error


def _explained(url: str, error: Exception) -> ImageError:
    """What went wrong, in plain words, whichever store it is that says so."""
    if isinstance(error, FileNotFoundError) or _status(error) in (404, 410):
        return ImageError(f"{url} does not exist; check the URL", code="image_not_found")
    if isinstance(error, PermissionError) or _status(error) in (401, 403):
        what = "access is denied; check your credentials"
    elif "credentials" in type(error).__name__.lower():  # botocore's and Google's
        what = f"there are no credentials: {_said(error)}; set them up as for the store's own tools"
    elif isinstance(error, TimeoutError):
        what = "the server takes too long; try again later"
    else:
        what = f"{_said(error)}; try again later"
    return ImageError(f"{url} cannot be read: {what}", code="image_unreadable")


def _status(error: Exception) -> object:
    """The status that a server answered with, if it is in the error: aiohttp's and Google's have it."""
    return getattr(error, "status", None) or getattr(error, "code", None)


def _said(error: Exception) -> str:
    first, *_ = str(error).splitlines() or [""]
    return first.strip().rstrip(".") or type(error).__name__
