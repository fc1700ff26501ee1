"""Grey pictures of more than 8 bits, as cameras in science and medicine make them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

AT_ONCE = 1_000_000  # pixels


def to_grey(image: Image.Image) -> Image.Image:
    """Bring grey values of more than 8 bits to 8 bits.

    These modes do not say which value is white. It is taken to be the usual one that holds the brightest pixel:
    1 (fractions only), 255 or 65535; if none does, the picture's own range is stretched from black to white.
    """
    values = np.asarray(image)
    # Some rows at a time: as floating-point numbers all of a large picture would take many times its memory.
    step = max(1, AT_ONCE // image.width)
    strips = [values[start : start + step] for start in range(0, image.height, step)]
    bounds = [(float(strip.min()), float(strip.max())) for strip in map(_finite, strips)]
    low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    white = next((white for white in whites if high <= white), None)
    if low >= 0 and white is not None:
        low, high = 0.0, white
    grey = np.empty(values.shape, dtype=np.uint8)
    for start, strip in zip(range(0, image.height, step), strips, strict=True):
        grey[start : start + step] = np.interp(_finite(strip), (low, high), (0, 255)).round()
    return Image.fromarray(grey)


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.nan_to_num(values, posinf=0, neginf=0))
