from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioner.config import ImageConfig
from captioner.images import to_array
from training.augmentation import STRETCH, Augmentation, augment, random_box

CONFIG = ImageConfig(height=24, width=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def ramp(width: int = 320, height: int = 240) -> Image.Image:
    """Red grows from left to right, green from top to bottom, blue is constant: a pixel tells where it comes from."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = 255 * columns / (width - 1), 255 * rows / (height - 1)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 100)], axis=-1).round().astype(np.uint8))


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)), smallest=st.floats(0.01, 1), seed=st.integers(0, 2**32)
)
def test_a_random_box_lies_in_the_picture_and_is_no_smaller_than_asked(
    size: tuple[int, int], smallest: float, seed: int
) -> None:
    left, top, right, bottom = random_box(size, smallest, np.random.default_rng(seed))
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert (right - left) * (bottom - top) >= smallest * size[0] * size[1] * (1 - 1e-9)


def test_random_boxes_cover_all_sizes_proportions_and_places() -> None:
    random = np.random.default_rng(0)
    boxes = np.array([random_box((1000, 1000), 0.25, random) for _ in range(2000)])
    widths, heights = (boxes[:, 2:] - boxes[:, :2]).T
    areas, proportions = widths * heights / 1e6, widths / heights
    assert areas.min() < 0.27
    assert areas.max() > 0.98
    assert np.quantile(areas, 0.5) == pytest.approx(0.625, abs=0.03), "uniform between 0.25 and 1"
    assert proportions.min() == pytest.approx(1 / STRETCH, rel=0.02)
    assert proportions.max() == pytest.approx(STRETCH, rel=0.02)
    assert (boxes[:, 0] == 0).mean() < 0.1
    assert (boxes[:, :2].max(axis=0) > 400).all()
    assert (boxes[:, 2:].max(axis=0) == 1000).all()


def test_a_crop_shows_a_part_of_the_picture_in_full_size() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        red, green, blue = augment(ramp(), CONFIG, Augmentation(flip=False, crop=0.3), random)
        assert red.shape == (24, 32)
        assert (np.diff(red, axis=1) > -1e-6).all(), "not mirrored"
        assert (np.diff(green, axis=0) > -1e-6).all(), "not upside down"
        width, height = np.ptp(red), np.ptp(green)  # of the part, as shares of the picture
        assert width * height > 0.3 * 0.85  # the edge pixels' centres lie inside the part
        assert blue == pytest.approx(100 / 255, abs=0.01)


def test_colours_vary_within_the_bound_and_leave_the_place_alone() -> None:
    random = np.random.default_rng(2)
    plain = to_array(ramp(), CONFIG)
    means = []
    for _ in range(100):
        changed = augment(ramp(), CONFIG, Augmentation(flip=False, colour=0.3), random)
        assert 0 <= changed.min() <= changed.max() <= 1
        assert np.corrcoef(changed[0].ravel(), plain[0].ravel())[0, 1] > 0.9
        means.append(changed.mean() / plain.mean())
    assert 0.68 < min(means) < 0.8, "down to 1 - 0.3"
    assert 1.15 < max(means) < 1.32, "up to 1 + 0.3"


def test_without_augmentation_a_picture_is_as_the_captioner_sees_it() -> None:
    random = np.random.default_rng(0)
    found = augment(ramp(), CONFIG, Augmentation(flip=False), random)
    np.testing.assert_array_equal(found, to_array(ramp(), CONFIG))
