"""Captions as alt text in metadata: in XMP sidecars, or within the pictures' own files."""

from __future__ import annotations

import contextlib
import os

from captioner.batch.outputs.files import Captions, Files, Target
from captioner.batch.outputs.places import Places
from captioner.batch.outputs.replacing import OutputError, sweep
from captioner.batch.pictures import Picture
from captioner.errors import CaptionerError, ImageError
from captioner.metadata.files import FORMATS, embed, read_embedded, read_sidecar, sidecar_of, write_sidecar
from captioner.metadata.replacing import replace, state


class _AltTexts(Files):
    """Files that lie where the picture lies, or would lie."""

    def place(self, picture: Picture) -> Target:
        """See :class:`Files`: the picture's own place."""
        return Target(picture, self.places.take([self.places.of(picture)], picture))


class Sidecars(_AltTexts):
    """``photo.jpg.xmp`` beside ``photo.jpg``; what else a sidecar says is kept."""

    def exists(self, target: Target) -> bool:
        """See :class:`Files`: a sidecar with alt text."""
        with contextlib.suppress(CaptionerError):  # what ails it is told when it is to be written
            return read_sidecar(target.place) is not None
        return False

    def write(self, target: Target, captions: Captions) -> None:
        """See :class:`Files`."""
        self.make_folder(target)
        write_sidecar(target.place, _text(captions))

    def sweep(self, target: Target) -> None:
        """See :class:`Files`."""
        sweep(sidecar_of(target.place))


class Embedded(_AltTexts):
    """Alt text in the pictures themselves, no pixel changed; or, in a folder of their own, in copies of them.

    Args:
        places: where the files lie.
        copies: whether they are copies.
        skip: copies keep the alt text that their originals have.
    """

    read_originals = True

    def __init__(self, places: Places, *, copies: bool, skip: bool = True) -> None:
        super().__init__(places)
        self._copies, self._skip = copies, skip

    def place(self, picture: Picture) -> Target:
        """See :class:`Files`; a copy does not take the place of its original."""
        target = super().place(picture)
        with contextlib.suppress(OSError):  # there is nothing
            if self._copies and picture.path is not None and target.place.samefile(picture.path):
                raise OutputError(
                    f"the copy of {picture.name} would take its place: name another folder with --output, or leave "
                    "that out to change the pictures themselves"
                )
        return target

    def exists(self, target: Target) -> bool:
        """See :class:`Files`: the file has alt text."""
        with contextlib.suppress(CaptionerError):
            return read_embedded(target.place) is not None
        return False

    def write(self, target: Target, captions: Captions) -> None:
        """See :class:`Files`."""
        text, picture, place = _text(captions), target.picture, target.place
        if not self._copies:
            embed(place, text)
            return
        content = _embedded(picture, text, keep=self._skip)
        self.make_folder(target)
        try:
            before = state(place)
        except OSError as error:
            raise OutputError(f"{place} cannot be written: {error.strerror or error}; name another folder") from error
        replace(place, content, before)
        if picture.path is not None:
            with contextlib.suppress(OSError):  # a copy of today is a copy, too
                times = picture.path.stat()
                os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))


def _embedded(picture: Picture, text: str, *, keep: bool) -> bytes:
    data = picture.read()
    for format_ in FORMATS:
        if format_.begins(data):
            if keep and format_.read(data, picture.name) is not None:
                return data
            return format_.embed(data, text, picture.name, keep_description=True)
    raise ImageError(
        f"{picture.name} is not JPEG, PNG or WebP, the formats that take an alt text here; use --format xmp",
        code="cannot_embed",
    )


def _text(captions: Captions) -> str:
    ((_, (best, *_)),) = captions
    text: str = best["text"]
    return text
