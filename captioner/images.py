"""Anything that holds a picture -> an upright RGB picture -> the network's input.

Pictures come from strangers. Whatever the bytes, the outcome is a picture or an :class:`ImageError`, never
another exception, an outside program or a decoded flood of pixels.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from captioner import heif
from captioner.config import ImageConfig
from captioner.draft import Box, draft, turned, whole
from captioner.errors import ImageError
from captioner.grey import to_grey

ImageSource = str | os.PathLike[str] | bytes | BinaryIO | Image.Image

DEFAULT_MAX_PIXELS = 100_000_000
# Resampling needs some 32 bytes per source column or row, whatever the area: a 100,000,000 x 1 picture would take 3 GB.
MAX_SIDE = 1_000_000

# Formats that Pillow cannot decode by itself: it would run Ghostscript (EPS), open whatever file lies inside, EPS too
# (IPTC), ask a handler installed by the application (the stubs), or read no more than a header (MPEG).
REFUSED_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})

# EXIF orientation -> the operation that turns the stored picture upright; 1 is upright already.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(
    source: ImageSource, *, max_pixels: int = DEFAULT_MAX_PIXELS, formats: Collection[str] | None = None
) -> Image.Image:
    """Read a picture as people see it: upright, RGB, on white where it is transparent, the first frame if it moves.

    Args:
        source: a path, the bytes of an image file, a binary file object (read from its start, left open) or a
            PIL image (left as it is).
        max_pixels: refuse pictures of more pixels; checked before they are decoded.
        formats: names of Pillow's formats, to take only files of these, and only what is decoded in C; None takes all
            that Pillow decodes by itself.

    Returns:
        A picture of its own in mode RGB, without metadata.

    Raises:
        ImageError: there is no picture to be had, its ``code`` tells why.
    """
    picture, _ = _open(source, max_pixels, formats)
    if picture is source or isinstance(picture, ImageFile.ImageFile):  # else it has been made here
        picture = picture.copy()
    picture.info.clear()  # else a second reading would apply the orientation again
    return picture


def file_format(data: bytes) -> str:
    """The name of Pillow's format that a file of these bytes has. Errors as of :func:`open_image`."""
    with _plain_errors("the image"):
        return _identify(BytesIO(data), "the image", None).format or ""


def load_rgb(
    source: ImageSource,
    config: ImageConfig,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    formats: Collection[str] | None = None,
) -> NDArray[np.uint8]:
    """A picture fitted to the network's input size, not normalised yet. Arguments and errors as for :func:`open_image`.

    A large JPEG file is decoded smaller, see :mod:`captioner.draft` for what that changes; the limit is on its full
    size nevertheless.

    Returns:
        ``(config.height, config.width, 3)`` uint8, contiguous.
    """
    picture, box = _open(source, max_pixels, formats, side=max(config.width, config.height))
    return np.array(_fit(picture, box, config))


def thumbnail(source: ImageSource, side: int) -> Image.Image:
    """A picture as :func:`open_image` reads it, made smaller unless its sides have no more than ``side`` pixels."""
    picture, box = _open(source, DEFAULT_MAX_PIXELS, None, side)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(1.0, side / max(width, height))
    return picture.resize((max(1, round(scale * width)), max(1, round(scale * height))), Image.Resampling.BICUBIC, box)


def normalise(rgb: NDArray[np.uint8], config: ImageConfig) -> NDArray[np.float32]:
    """Scale and shift the channels as the network wants them: ``(rgb / 255 - mean) / std``.

    Args:
        rgb: ``(..., H, W, 3)``.
        config: its ``mean`` and ``std`` are used.

    Returns:
        ``(..., 3, H, W)`` float32, contiguous.
    """
    *leading, height, width, channels = rgb.shape
    pixels = np.empty((*leading, channels, height, width), dtype=np.float32)
    pictures = pixels.reshape(-1, channels, height, width), rgb.reshape(-1, height, width, channels)
    for planes, picture in zip(*pictures, strict=True):  # one at a time: it stays in the processor's cache
        for channel, (mean, std) in enumerate(zip(config.mean, config.std, strict=True)):
            plane = planes[channel]
            # Each step in single precision; in double precision and rounded once, the last bits would differ.
            np.divide(picture[..., channel], np.float32(255), out=plane, dtype=np.float32)
            plane -= np.float32(mean)
            plane /= np.float32(std)
    return pixels


def to_array(image: Image.Image, config: ImageConfig) -> NDArray[np.float32]:
    """Fit an RGB picture to the network's input size and normalise it.

    Returns:
        ``(3, config.height, config.width)`` float32, contiguous: ``(rgb / 255 - mean) / std``.
    """
    return normalise(np.asarray(_fit(image, whole(image), config)), config)


def load_pixels(
    source: ImageSource,
    config: ImageConfig,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    formats: Collection[str] | None = None,
) -> NDArray[np.float32]:
    """The network's input for a picture: :func:`load_rgb`, then :func:`normalise`."""
    return normalise(load_rgb(source, config, max_pixels=max_pixels, formats=formats), config)


def _open(
    source: ImageSource, max_pixels: int, formats: Collection[str] | None, side: int | None = None
) -> tuple[Image.Image, Box]:
    """An upright RGB picture, which may be the source itself, and the part of it that the picture fills.

    With a ``side``, a file may be decoded smaller, for a result of that many pixels a side at most.
    """
    if isinstance(source, Image.Image):
        with _plain_errors("the image"):
            return _decode(source, "the image", max_pixels)
    if isinstance(source, str | os.PathLike):
        if not os.fspath(source):
            raise ImageError("the path of the image is empty; give an image file", code="image_not_found")
        path = Path(source)
        with open_file(path) as file:
            return _read(file, str(path), max_pixels, formats, side)
    if isinstance(source, bytes | bytearray | memoryview):
        return _read(BytesIO(source), "the image", max_pixels, formats, side)
    if hasattr(source, "read"):
        return _read(source, "the image", max_pixels, formats, side)
    raise ImageError(
        f"an image must be a path, bytes, a binary file object or a PIL image, not {type(source).__name__}",
        code="not_an_image",
    )


def _fit(image: Image.Image, box: Box, config: ImageConfig) -> Image.Image:
    """Bring what is in the box of a picture to the network's input size."""
    if config.fit == "crop":
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        scale = min(width / config.width, height / config.height)
        across, down = max((width - scale * config.width) / 2, 0.0), max((height - scale * config.height) / 2, 0.0)
        box = (left + across, top + down, right - across, bottom - down)
    # Pillow widens the bicubic kernel when it shrinks (antialiasing), and copies a picture of the exact size.
    return image.resize((config.width, config.height), Image.Resampling.BICUBIC, box=box)


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        ImageError: it cannot be opened, its ``code`` tells why.
    """
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"{path} does not exist; check the path", code="image_not_found") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path} is a directory; give an image file", code="image_unreadable") from error
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise ImageError(f"{path} cannot be opened: {reason}; check the file", code="image_unreadable") from error


def _read(
    file: BinaryIO, name: str, max_pixels: int, formats: Collection[str] | None, side: int | None
) -> tuple[Image.Image, Box]:
    with _plain_errors(name):
        try:
            file.seek(0)
        except (AttributeError, OSError):  # a pipe
            file = BytesIO(file.read())
        image = _identify(file, name, formats)
        size = image.size
        try:
            return _decode(image, name, max_pixels, side)
        except OSError:
            if image.size == size:
                raise
        # It was to be decoded smaller. libjpeg does not do that where no frequencies are stored (lossless JPEG).
        file.seek(0)
        return _decode(_identify(file, name, formats), name, max_pixels)


@contextmanager
def _plain_errors(name: str) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} needs too much memory; use a smaller picture", code="image_too_large") from error
    except Exception as error:  # on damaged data decoders raise nearly every exception there is
        raise ImageError(f"{name} is damaged or incomplete; save it again or use another file") from error


def _identify(file: BinaryIO, name: str, formats: Collection[str] | None) -> Image.Image:
    """Read the header with the first format that accepts it.

    ``Image.open`` does the same, but it answers a large picture with a process-wide warning before the caller
    can look at the size.
    """
    prefix = file.read(16)
    if not prefix:
        raise ImageError(f"{name} is empty; give an image file", code="not_an_image")
    Image.preinit()  # registers the common formats first, so that they are tried first
    Image.init()
    recognised = ""
    for format_ in Image.ID:
        if format_ in REFUSED_FORMATS or (formats is not None and format_ not in formats):
            continue
        factory, accepts = Image.OPEN[format_]
        try:
            if accepts is not None:
                if accepts(prefix) is not True:  # a text says that Pillow was built without this format
                    continue
                recognised = recognised or format_
            file.seek(0)
            image = factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # how Pillow's formats say "not mine"
            continue
        if formats is not None and any(tile.codec_name in Image.DECODERS for tile in image.tile):  # such as BMP's RLE
            raise ImageError(
                f"{name} is a {format_} image of a kind that is not taken here; save it as JPEG or PNG",
                code="not_an_image",
            )
        return image
    codec = heif.codec(file) if formats is None or heif.FORMAT in formats else ""
    if codec == "HEIC":
        try:
            return heif.open_heif(file, name)
        except SyntaxError:
            recognised = codec
    elif codec == "AVIF" and not recognised:
        raise ImageError(
            f"{name} is an AVIF image, and this Pillow does not read it: pip install -U pillow brings one that may",
            code="not_an_image",
        )
    if recognised:
        raise ImageError(f"{name} starts like a {recognised} image but is damaged or incomplete; use another file")
    if formats is not None:
        raise ImageError(
            f"{name} has none of the image formats taken here; use one of {', '.join(formats)}", code="not_an_image"
        )
    raise ImageError(
        f"{name} has no known image format; use JPEG, PNG, WebP or another common one", code="not_an_image"
    )


def _decode(image: Image.Image, name: str, max_pixels: int, side: int | None = None) -> tuple[Image.Image, Box]:
    """Decode the pixels, turn them upright and make them RGB; see :func:`_open`.

    Icons are decoded as soon as they are identified: until here only Pillow's own limit bounds them.
    """
    _check_size(image, name, max_pixels)
    box = whole(image) if side is None else draft(image, side)
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        if orientation in UPRIGHT:
            operation = UPRIGHT[orientation]
            box, image = turned(box, image.size, operation), image.transpose(operation)
    except Exception:  # damaged metadata are no reason to refuse a good picture
        pass
    return _to_rgb(image), box


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width} x {height}); use another file")
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        limit = f"{max_pixels:,} pixels" if width * height > max_pixels else f"{MAX_SIDE:,} pixels a side"
        raise ImageError(
            f"{name} is too large: {width} x {height}, the limit is {limit}; use a smaller picture",
            code="image_too_large",
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB; a picture that is RGB already is returned as it is."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = to_grey(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
