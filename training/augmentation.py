"""Random changes of a picture that leave its captions true."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from captioner.config import Config, ImageConfig
from captioner.engines import Array
from captioner.images import to_array

STRETCH = 4 / 3  # a crop is at most so much wider or higher, in proportion, than the picture


@dataclass(frozen=True)
class Augmentation(Config):
    """What may change.

    Attributes:
        flip: mirror half of the pictures.
        crop: prepare a random part of each picture, with at least this share of its area, in place of the whole.
        colour: vary brightness, contrast and saturation by up to this share.
    """

    flip: bool = True
    crop: float = 1.0
    colour: float = 0.0


def augment(
    picture: Image.Image, config: ImageConfig, augmentation: Augmentation, random: np.random.Generator
) -> Array:
    """Crop, recolour and mirror at random.

    Args:
        picture: RGB.
        config: how pictures are prepared.
        augmentation: what may change.
        random: decides everything.

    Returns:
        (3, H, W) normalised pixels.
    """
    if augmentation.crop < 1:
        picture = picture.crop(random_box(picture.size, augmentation.crop, random))
    if augmentation.colour > 0:
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = enhance(picture).enhance(random.uniform(1 - augmentation.colour, 1 + augmentation.colour))
    pixels = to_array(picture, config)
    return pixels[:, :, ::-1] if augmentation.flip and random.random() < 0.5 else pixels


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
