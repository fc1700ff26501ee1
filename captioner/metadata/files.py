"""Alt text in files: in a sidecar beside the picture, or in the picture's own file.

A sidecar is called like the picture's file with ``.xmp`` behind it, as several photo managers have it, since
``photo.jpg`` and ``photo.png`` are two pictures. Of what else is in it or in the picture's file nothing is lost.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from captioner.errors import ImageError
from captioner.metadata import jpeg, png, webp
from captioner.metadata.edits import FileSlices, Slices
from captioner.metadata.replacing import replace, state
from captioner.metadata.xmp import ALT_TEXT, MAX_PACKET, Packet, updated

MAX_FILE = 1 << 30  # bytes; while an alt text is put in, the file is in memory twice
LONGEST_SIGNATURE = 12  # bytes


class Embed(Protocol):
    """Bytes of a file -> the bytes with the alt text."""

    def __call__(self, data: bytes, text: str, name: str, *, keep_description: bool) -> bytes:
        """As :func:`captioner.metadata.jpeg.embed`."""


class Format(NamedTuple):
    """A kind of file that can hold an alt text."""

    begins: Callable[[bytes], bool]
    read: Callable[[Slices, str], str | None]
    embed: Embed


FORMATS = (
    Format(lambda head: head.startswith(jpeg.SIGNATURE), jpeg.read, jpeg.embed),
    Format(lambda head: head.startswith(png.SIGNATURE), png.read, png.embed),
    Format(webp.is_webp, webp.read, webp.embed),
)


def sidecar_of(image: Path) -> Path:
    """Where the sidecar of a picture belongs: ``photo.jpg.xmp`` beside ``photo.jpg``.

    Raises:
        ImageError: the path has no file's name.
    """
    if not image.name:
        raise ImageError(f"{image} names no file; give an image file", code="image_not_found")
    return image.with_name(f"{image.name}.xmp")


def write_sidecar(image: Path, text: str, *, keep_description: bool = True) -> None:
    """Write the alt text of a picture into its sidecar, or change the sidecar that is there. The picture is not read.

    Args:
        image: the picture's path, beside which the sidecar belongs.
        text: the alt text; what XML cannot hold is left out. Up to 125 characters are recommended.
        keep_description: leave a ``dc:description`` that is there and not the alt text; else it becomes the text too.

    Raises:
        ImageError: the sidecar that is there cannot be read.
        OptionError: the text is empty.
        CaptionerError: the sidecar cannot be written. What was there is there unchanged.
    """
    sidecar = sidecar_of(image)
    path = _real(sidecar, strict=False)
    with _plain_errors(sidecar):
        before = state(path)
    old = []
    if before is not None:
        with _open(path, sidecar) as file, _plain_errors(sidecar):
            old.append(_content(file, sidecar, MAX_PACKET))
    new = updated(old, text, str(sidecar), keep_description=keep_description)
    if new != old:
        replace(path, new[0], before)


def embed(image: Path, text: str, *, keep_description: bool = True) -> None:
    """Write the alt text of a picture into its own file: JPEG, PNG or WebP.

    The file is replaced as a whole, see :mod:`captioner.metadata.replacing`; the picture's data and all other metadata
    are the same bytes as before, and so are the file's times. A file that has the alt text already is left alone.

    Args:
        image: the picture's path.
        text: the alt text; what XML cannot hold is left out. Up to 125 characters are recommended.
        keep_description: leave a ``dc:description`` that is there and not the alt text; else it becomes the text too.

    Raises:
        ImageError: there is no such file, it is of another format or damaged, or its XMP cannot be read or has no
            room. Its ``code`` tells which.
        OptionError: the text is empty.
        CaptionerError: the file cannot be written. It is there unchanged.
    """
    path = _real(image, strict=True)
    with _plain_errors(image):
        before = path.stat()
    with _open(path, image) as file, _plain_errors(image):
        format_ = _format_of(file)
        if format_ is None:
            raise ImageError(
                f"{image} is not JPEG, PNG or WebP, the formats that take an alt text here; write a sidecar file",
                code="cannot_embed",
            )
        data = _content(file, image, MAX_FILE)
        new = format_.embed(data, text, str(image), keep_description=keep_description)
    if new != data:
        replace(path, new, before, keep_times=True)


def read(image: Path) -> str | None:
    """The alt text of a picture: that of its sidecar, or else that in its own file; None if it has none.

    Raises:
        ImageError: there is no such picture, or it or its sidecar is damaged.
    """
    _real(image, strict=True)
    text = read_sidecar(image)
    return read_embedded(image) if text is None else text


def read_sidecar(image: Path) -> str | None:
    """The alt text in a picture's sidecar; None if there is no sidecar, or none in it.

    Raises:
        ImageError: the sidecar cannot be read.
    """
    sidecar = sidecar_of(image)
    path = _real(sidecar, strict=False)
    with _plain_errors(sidecar):
        if state(path) is None:
            return None
    with _open(path, sidecar) as file, _plain_errors(sidecar):
        return Packet(_content(file, sidecar, MAX_PACKET), str(sidecar)).text(ALT_TEXT)


def read_embedded(image: Path) -> str | None:
    """The alt text in a picture's own file; None if there is none, or the format is not one that takes it here.

    Of the file only its structure and its XMP are read, not the picture.

    Raises:
        ImageError: there is no such file, or it is damaged.
    """
    with _open(_real(image, strict=True), image) as file, _plain_errors(image):
        format_ = _format_of(file)
        return None if format_ is None else format_.read(FileSlices(file), str(image))


def _real(path: Path, *, strict: bool) -> Path:
    """The file that a path names, whatever symbolic links are on the way; strictly, it must exist."""
    with _plain_errors(path):
        try:
            return Path(os.path.realpath(path, strict=strict))
        except ValueError as error:  # a character that no file name has
            raise FileNotFoundError(path) from error


def _open(path: Path, name: Path) -> BinaryIO:
    with _plain_errors(name):
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its other end
            raise ImageError(f"{name} is not a file; give an image file", code="image_unreadable")
        return path.open("rb")


def _format_of(file: BinaryIO) -> Format | None:
    head = file.read(LONGEST_SIGNATURE)
    return next((format_ for format_ in FORMATS if format_.begins(head)), None)


def _content(file: BinaryIO, name: Path, limit: int) -> bytes:
    if file.seek(0, os.SEEK_END) > limit:
        raise ImageError(f"{name} is larger than {limit:,} bytes; use a smaller file", code="image_too_large")
    file.seek(0)
    return file.read()


@contextmanager
def _plain_errors(name: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise ImageError(f"{name} needs too much memory; use a smaller file", code="image_too_large") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"{name} does not exist; check the path", code="image_not_found") from error
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise ImageError(f"{name} cannot be read: {reason}; check the file", code="image_unreadable") from error
