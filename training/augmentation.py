"""Random changes of a picture that leave its captions true."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageEnhance

from captioner.config import ImageConfig
from captioner.engines import Array
from captioner.images import to_array
from training.recipe import Stage

STRETCH = 4 / 3  # a crop is at most so much wider or higher, in proportion, than the picture


def augment(picture: Image.Image, config: ImageConfig, stage: Stage, random: np.random.Generator) -> Array:
    """Crop, recolour and mirror at random, as ``stage`` says.

    Args:
        picture: RGB.
        config: how pictures are prepared.
        stage: its ``crop``, ``colour`` and ``flip`` count.
        random: decides everything.

    Returns:
        (3, H, W) normalised pixels.
    """
    if stage.crop < 1:
        picture = picture.crop(random_box(picture.size, stage.crop, random))
    if stage.colour > 0:
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = enhance(picture).enhance(random.uniform(1 - stage.colour, 1 + stage.colour))
    pixels = to_array(picture, config)
    return pixels[:, :, ::-1] if stage.flip and random.random() < 0.5 else pixels


def random_box(size: tuple[int, int], smallest: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    """A random part of a picture: the crops of Szegedy et al. (2015), section 6, with proportions kept closer.

    Args:
        size: width and height of the picture in pixels.
        smallest: share of the picture's area that the part has at least.
        random: decides area, proportions and place.

    Returns:
        Left, top, right and bottom in pixels, at least one pixel each way.
    """
    side = math.sqrt(random.uniform(smallest, 1))
    bound = min(0.5 * math.log(STRETCH), abs(math.log(side)))  # more would stretch the part beyond the picture
    stretch = math.exp(random.uniform(-bound, bound))
    shares = side * stretch, side / stretch
    width, height = (min(whole, math.ceil(share * whole)) for share, whole in zip(shares, size, strict=True))
    left, top = (int(random.integers(0, whole - part + 1)) for whole, part in zip(size, (width, height), strict=True))
    return left, top, left + width, top + height
