"""Pictures on their way to the model: which of them it is to see, and what it sees of them."""

from __future__ import annotations

import contextlib
import hashlib
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from captioner.batch.dealing import Foreign
from captioner.batch.outputs.files import Files, Target
from captioner.batch.outputs.replacing import OutputError
from captioner.batch.pictures import Failure, Picture
from captioner.batch.plan import Plan, Tally
from captioner.batch.record import DONE, FAILED, FAILED_BEFORE, Record
from captioner.batch.rows import Row
from captioner.config import ImageConfig
from captioner.engines import FloatArray
from captioner.errors import CaptionerError, ImageError
from captioner.images import load_rgb, normalise


@dataclass(frozen=True)
class Item:
    """A picture to caption.

    Attributes:
        picture: itself.
        key: its name in the record.
        position: in the record, if it has one.
        target: of its captions, if they are to have a file.
        error: why they cannot have one.
    """

    picture: Picture
    key: str
    position: int | None = None
    target: Target | None = None
    error: CaptionerError | None = None


@dataclass(frozen=True)
class View:
    """A picture as a model sees it: (3, H, W), and the hash of it by which duplicates are known.

    The pixels are hashed and not the file: a caption written into the file changes that, but not what it shows.
    """

    pixels: FloatArray
    digest: bytes


@dataclass(frozen=True)
class Views:
    """A picture as all models see it.

    Attributes:
        by_config: a view for each way of preparing pictures.
        details: what its first row tells besides captions.
    """

    by_config: Mapping[ImageConfig, View]
    details: Row


class Reader:
    """What is done by threads ahead of the model.

    Args:
        plan: of the run.
        record: of what is done.
        files: where captions are written to, unless the record is enough.
        key: how the record calls a picture of this name.
        tally: notes what needs no captions.
    """

    def __init__(
        self, plan: Plan, record: Record, files: Files | None, key: Callable[[str], str], tally: Tally
    ) -> None:
        self._plan, self._record, self._files = plan, record, files
        self._key, self._tally = key, tally
        self._configs = list(dict.fromkeys(model.info.image for model, _ in plan.models))

    def wanted(self, pictures: Iterator[Picture | Foreign]) -> Iterator[Item]:
        """Those pictures that are to be captioned, or to fail."""
        for picture in pictures:
            if isinstance(picture, Foreign):
                self._target(picture.picture)  # no file is to have the name of that one's
                continue
            key = self._key(picture.name)
            position, status = self._record.find(key) or (None, None)
            target, error = self._target(picture)
            if status in (DONE, FAILED):
                self._tally.known += 1
            elif position is not None and status == FAILED_BEFORE and not self._plan.retry_failed:
                self._record.fail_again(position)
                self._tally.known += 1
            elif target is not None and self._exists(target, position, status):
                self._tally.skipped += 1
            else:
                yield Item(picture, key, position, target, error)

    def _target(self, picture: Picture) -> tuple[Target | None, CaptionerError | None]:
        if self._files is None or isinstance(picture.read, Failure):
            return None, None
        try:
            target = self._files.place(picture)
            self._files.require_writable(target)
        except OutputError as error:
            return None, error
        return target, None

    def _exists(self, target: Target, position: int | None, status: str | None) -> bool:
        """Whether a picture has a file that is not to be written over."""
        assert self._files is not None
        if status not in (None, FAILED_BEFORE):  # what is there may be this run's own
            self._files.sweep(target)
            return False
        if not (self._plan.skip and self._files.exists(target)):
            return False
        if position is not None:  # somebody else has captioned what had failed
            self._record.forget(position)
        return True

    def views(self, item: Item) -> Views | CaptionerError:
        """What the models see of an item; or why they cannot. Called by several threads."""
        try:
            _require_file(item.picture)
            data = item.picture.read()
            if item.error is not None:
                return item.error
            by_config = {config: _view(data, config) for config in self._configs}
            return Views(by_config, self._plan.details.of_picture(item.picture, data))
        except CaptionerError as error:
            return error
        finally:
            if self._files is None or not self._files.read_originals:
                item.picture.release()


def _require_file(picture: Picture) -> None:
    """Raise :class:`ImageError` for pipes, sockets and devices, reading which might never end."""
    with contextlib.suppress(OSError, ValueError):  # reading tells it
        if picture.path is not None and stat.S_IFMT(picture.path.stat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise ImageError(f"{picture.name} is no file; give an image file", code="image_unreadable")


def _view(data: bytes, config: ImageConfig) -> View:
    rgb = load_rgb(data, config)
    return View(normalise(rgb, config), hashlib.blake2b(rgb.data, digest_size=16).digest())
