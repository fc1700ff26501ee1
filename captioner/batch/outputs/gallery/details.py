"""What a gallery shows of a picture besides its captions: the picture itself, and where the model looked."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from captioner.batch.pictures import Picture, is_archive
from captioner.batch.remote import is_url, is_web, path_in
from captioner.batch.rows import Details
from captioner.captioner import Captioner
from captioner.images import file_format, thumbnail
from captioner.results import Caption

SHOWN = frozenset({"AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "WEBP"})  # by every current browser
SIDE = 320  # pixels of an embedded picture, at most
QUALITY = 75  # of its JPEG
MOST = 255


class GalleryDetails(Details):
    """For a gallery that lies in a folder, to which it names the pictures' files.

    A picture gets a ``source``: its address, or a smaller copy of it where a browser could not open the original.
    A caption gets an ``attention``: ``shape`` (T, rows, columns) and ``weights``, in base64 a byte each, where 255 is
    the largest of a token's. It says ``cropped`` if the model saw the middle of the picture alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.abspath(folder)  # noqa: PTH100 - a browser follows no links, and resolve() would

    def of_picture(self, picture: Picture, data: bytes) -> Mapping[str, Any]:
        """See :class:`Details`."""
        address = self._address(picture) if file_format(data) in SHOWN else None
        return {"source": address or _copy(data)}

    def _address(self, picture: Picture) -> str | None:
        if is_url(picture.name):
            folders = path_in(picture.name)[1].split("/")[:-1]
            return picture.name if is_web(picture.name) and not any(map(is_archive, folders)) else None
        if picture.path is None:
            return None
        try:
            relative = os.path.relpath(picture.path, self._folder)
        except ValueError:  # on another disk
            return picture.path.absolute().as_uri()
        return quote(os.fsencode(Path(relative).as_posix()))

    def of_caption(self, model: Captioner, caption: Caption) -> Mapping[str, Any]:
        """See :class:`Details`."""
        if model.info.model.attention == "none":
            return {}
        weights = caption.attention
        most = weights.max(axis=(1, 2), keepdims=True, initial=np.finfo(np.float32).tiny)
        data = np.rint(weights / most * MOST).astype(np.uint8).tobytes()
        attention = {"shape": list(weights.shape), "weights": base64.b64encode(data).decode("ascii")}
        return {"attention": attention | ({"cropped": True} if model.info.image.fit == "crop" else {})}


def _copy(data: bytes) -> str:
    file = BytesIO()
    thumbnail(data, SIDE).save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
