from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioner.captioner import Captioner
from captioner.config import ImageConfig
from captioner.images import load_pixels
from training.augmentation import Augmentation
from training.inputs import Features, Pictures, prefetch

IMAGES, ROWS, COLUMNS, WIDTH = 6, 2, 3, 4


def make_features(views: int = 1) -> np.ndarray:
    values = np.arange(views * IMAGES * ROWS * COLUMNS * WIDTH, dtype=np.float16)
    return values.reshape(views, IMAGES, ROWS * COLUMNS, WIDTH)


def test_features_come_in_the_order_asked_for() -> None:
    features = make_features()
    loaded = Features(features).load(np.array([4, 1, 4]), np.random.default_rng(0))
    assert loaded.dtype == torch.float32
    np.testing.assert_array_equal(loaded.numpy(), features[0, [4, 1, 4]])


def test_each_load_takes_one_of_the_versions_of_a_picture_at_random() -> None:
    features = make_features(views=3)
    images = np.arange(IMAGES).repeat(100)
    loaded = Features(features).load(images, np.random.default_rng(0)).numpy()
    taken = (loaded == features[:, images]).all(axis=(2, 3))  # (V, images)
    assert (taken.sum(axis=0) == 1).all(), "each is one version of its own picture, whole"
    counts = taken.reshape(3, IMAGES, 100).sum(axis=2)
    assert counts.min() > 15, "each version of each picture occurs, not one for a whole batch"
    again, other = (Features(features).load(images, np.random.default_rng(seed)).numpy() for seed in (0, 1))
    np.testing.assert_array_equal(loaded, again)
    assert not np.array_equal(loaded, other)


def test_flip_mirrors_the_columns_of_about_half_the_grids() -> None:
    features = make_features()
    mirrored = features.reshape(1, IMAGES, ROWS, COLUMNS, WIDTH)[:, :, :, ::-1].reshape(features.shape)
    images = np.arange(IMAGES).repeat(100)
    loaded = Features(features, mirror=ROWS).load(images, np.random.default_rng(0)).numpy()
    as_is = (loaded == features[0, images]).all(axis=(1, 2))
    flipped = (loaded == mirrored[0, images]).all(axis=(1, 2))
    assert (as_is ^ flipped).all()
    assert 250 < flipped.sum() < 350
    np.testing.assert_array_equal(features, make_features(), err_msg="the cached features themselves were mirrored")


def test_features_read_a_cache_that_is_not_writable(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", make_features())
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    loaded = Features(mapped, mirror=ROWS).load(np.arange(IMAGES), np.random.default_rng(0))
    loaded += 1  # torch would warn of a tensor over read-only memory


def test_features_and_pictures_give_the_model_its_grid(tiny_captioner: Captioner, photo: Path) -> None:
    model, config = tiny_captioner.engine.model, tiny_captioner.info.image  # type: ignore[attr-defined]
    random = np.random.default_rng(0)
    pictures = Pictures([photo], config, Augmentation(flip=False))
    loaded = pictures.load(np.array([0, 0]), random)
    assert loaded.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        seen = pictures.grid(model, loaded)
        whole = Features(model.encoder(loaded).numpy()[None])
        part = Features(model.encoder.begin(loaded, "features.3").numpy()[None], node="features.3")
        for features in (whole, part):
            behind = features.load(np.array([0, 1]), random)
            assert behind.dim() == (4 if features is part else 3)
            for mine, theirs in zip(seen, features.grid(model, behind), strict=True):
                torch.testing.assert_close(mine, theirs)


CONFIG = ImageConfig(height=30, width=40)


def load_many(photo: Path, count: int = 100, seed: int = 0, **changes: Any) -> np.ndarray:
    pictures = Pictures([photo], CONFIG, Augmentation(**changes))
    return pictures.load(np.zeros(count, dtype=np.int64), np.random.default_rng(seed)).numpy()


def test_pictures_without_augmentation_are_as_the_captioner_sees_them(photo: Path) -> None:
    loaded = load_many(photo, count=3, flip=False)
    np.testing.assert_array_equal(loaded, np.stack([load_pixels(photo, CONFIG)] * 3))


def test_pictures_are_mirrored_half_of_the_time(photo: Path) -> None:
    plain = load_pixels(photo, CONFIG)
    loaded = load_many(photo, flip=True)
    as_is, flipped = ((loaded == picture).all(axis=(1, 2, 3)) for picture in (plain, plain[:, :, ::-1]))
    assert (as_is ^ flipped).all()
    assert 35 < flipped.sum() < 65


def test_augmentation_follows_from_the_generator_alone(photo: Path) -> None:
    options: dict[str, Any] = {"flip": True, "crop": 0.5, "colour": 0.2}
    first, again, other = (load_many(photo, count=8, seed=seed, **options) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_prefetch_keeps_the_order() -> None:
    def square(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number**2

    assert list(prefetch(square, range(20))) == [number**2 for number in range(20)]
    assert list(prefetch(square, [])) == []


def test_prefetch_is_exactly_one_item_ahead_and_in_another_thread() -> None:
    taken: list[int] = []
    threads = set()

    def items() -> Iterator[int]:
        for number in range(5):
            taken.append(number)
            yield number

    def prepare(number: int) -> int:
        threads.add(threading.current_thread())
        return number

    for number in prefetch(prepare, items()):
        assert taken == list(range(min(number + 2, 5)))
    assert len(threads) == 1, "randomness drawn in two threads would come in any order"
    assert threads.isdisjoint({threading.main_thread()})


def test_prefetch_passes_an_error_on_in_its_place() -> None:
    def divide(number: int) -> float:
        return 6 / number

    results = prefetch(divide, [1, 2, 0, 3])
    assert next(results) == 6
    assert next(results) == 3
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_prefetch_that_is_given_up_ends_its_thread() -> None:
    before = threading.active_count()
    results = prefetch(abs, range(100))
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
