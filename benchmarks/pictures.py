"""Pictures to caption: JPEGs that cost as much to decode as photos, always the same ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

LARGE = (4000, 3000)  # 12 megapixels, what a telephone takes


def make_picture(number: int, width: int = 500, height: int = 375, roughness: float = 0.7) -> bytes:
    """A JPEG as costly to decode as a photo: noise that is the weaker, the finer it is.

    Args:
        number: of the picture; the same number gives the same picture.
        width, height: in pixels.
        roughness: what each finer layer of noise has of the strength of the one before; 0.7 makes a busy photo.
    """
    random = np.random.default_rng(number)
    total = np.zeros((height, width, 3), np.float32)
    octave = 0
    while octave < 7 or 3 * 2**octave < height // 2:  # down to single pixels, or nearly
        octave += 1
        noise = random.normal(scale=roughness**octave, size=(3 * 2**octave, 4 * 2**octave, 3)).astype(np.float32)
        for channel in range(3):
            plane = Image.fromarray(noise[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += np.asarray(plane)
    total = (total - total.min()) / (total.max() - total.min())
    file = io.BytesIO()
    Image.fromarray((total * 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Write ``count`` JPEGs of 224 × 224, from smooth to rough ones, into a folder."""
    paths = [folder / f"{number:04}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(make_picture(number, 224, 224, roughness=0.5 + 0.3 * (number % 7) / 6))
    return paths


def find_pictures(folder: Path) -> list[Path]:
    """The JPEG files of a folder, by name.

    Raises:
        SystemExit: there are none.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        raise SystemExit(f"{folder} holds no JPEG files")
    return paths
