"""HEIC photographs, as telephones take them: read by the package pillow-heif, where it is installed.

Pillow reads AVIF by itself, the same container with another codec in it, but not HEVC (ISO/IEC 23008-12). The package
is asked only when Pillow has given up, and is not registered with it: what other code in the process reads with Pillow
stays as it is.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from PIL import ImageFile

from captioner.errors import ImageError

FORMAT = "HEIF"

# What a file may say that it is or is compatible with (ISO/IEC 14496-12, 4.3; 23008-12, annex B; the AVIF
# specification, 6): pictures or sequences in HEVC, and in AV1.
HEVC_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"])
AV1_BRANDS = frozenset([b"avif", b"avis"])
MOST_BRANDS = 64


def codec(file: BinaryIO) -> str:
    """``HEIC`` or ``AVIF`` by the brands at a file's start, else nothing."""
    file.seek(0)
    head = file.read(16 + 4 * MOST_BRANDS)
    if head[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, end, 4))}
    return "HEIC" if brands & HEVC_BRANDS else "AVIF" if brands & AV1_BRANDS else ""


def open_heif(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    """Read the header of a HEIC picture; its pixels are decoded when it is loaded, upright.

    Args:
        file: whose :func:`codec` is HEIC.
        name: for the error.

    Raises:
        ImageError: pillow-heif is not installed.
        SyntaxError: the file is damaged.
    """
    reader: Any
    try:
        import pillow_heif as reader

        reader.libheif_version()  # where its library is missing, it tells so only now
    except ImportError as error:
        raise ImageError(
            f"{name} is a HEIC image, and what reads these is not installed: pip install 'captioner[heif]' brings it",
            code="not_an_image",
        ) from error
    file.seek(0)
    image: ImageFile.ImageFile = reader.HeifImageFile(file, "")
    return image
