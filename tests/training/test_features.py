from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.config import ImageConfig
from captioner.encoder import GridEncoder
from captioner.images import load_pixels
from training import features
from training.features import cached_features, default_cache

CONFIG = ImageConfig(height=32, width=32)


@pytest.fixture
def encoder(toy_weights: Path) -> GridEncoder:
    encoder = GridEncoder("mobilenet_v2", "features.4")
    encoder.load_weights(toy_weights)
    return encoder


@pytest.fixture
def pictures(toy_data: Path, tmp_path: Path) -> list[Path]:
    """Copies, to be changed as a test likes."""
    shutil.copytree(toy_data / "train", tmp_path / "pictures")
    return sorted((tmp_path / "pictures").iterdir())


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "features"


def forbid_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("the encoder ran again")

    monkeypatch.setattr(GridEncoder, "forward", refuse)


def test_features_are_those_of_the_encoder_in_order(
    encoder: GridEncoder, pictures: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BATCH", 5)  # three batches, the last of them smaller
    found = cached_features(encoder, pictures, CONFIG, cache)
    pixels = torch.from_numpy(np.stack([load_pixels(picture, CONFIG) for picture in pictures]))
    with torch.no_grad():
        expected = encoder.eval()(pixels).numpy()
    assert found.dtype == np.float16
    assert found.shape == (12, 16, 32)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_the_second_call_computes_nothing(
    encoder: GridEncoder, pictures: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = np.array(cached_features(encoder, pictures, CONFIG, cache))
    forbid_computing(monkeypatch)
    second = cached_features(encoder, pictures, CONFIG, cache)
    np.testing.assert_array_equal(first, second)
    assert isinstance(second, np.memmap), "thousands of pictures need not fit into memory"
    assert not second.flags.writeable


def test_the_encoders_mode_is_left_as_it_was(encoder: GridEncoder, pictures: list[Path], cache: Path) -> None:
    encoder.train()
    cached_features(encoder, pictures[:1], CONFIG, cache)
    assert encoder.training


@pytest.mark.parametrize(
    "change", ["a weight", "a statistic", "a picture's content", "a picture's time", "fewer", "order", "size", "mean"]
)
def test_any_change_makes_new_features(encoder: GridEncoder, pictures: list[Path], cache: Path, change: str) -> None:
    cached_features(encoder, pictures, CONFIG, cache)
    config, state = CONFIG, encoder.state_dict()
    if change == "a weight":
        next(encoder.parameters()).data[0, 0, 0, 0] += 1
    elif change == "a statistic":
        state[next(name for name in state if name.endswith("running_var"))][0] += 1
    elif change == "a picture's content":
        shutil.copyfile(pictures[1], pictures[0])
    elif change == "a picture's time":
        os.utime(pictures[0], ns=(0, 0))
    elif change == "fewer":
        pictures = pictures[:-1]
    elif change == "order":
        pictures = pictures[::-1]
    elif change == "size":
        config = replace(CONFIG, width=64)
    else:
        config = replace(CONFIG, mean=(0.5, 0.5, 0.5))
    cached_features(encoder, pictures, config, cache)
    assert len(list(cache.iterdir())) == 2


def test_an_interruption_leaves_nothing_behind(
    encoder: GridEncoder, pictures: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BATCH", 5)
    loaded = []

    def interrupted(path: Path, config: ImageConfig) -> object:
        loaded.append(path)
        if len(loaded) == 8:  # the first batch is written, the second is not
            assert [file.suffix for file in cache.iterdir()] == [".partial"]
            raise KeyboardInterrupt
        return load_pixels(path, config)

    with monkeypatch.context() as patch:
        patch.setattr(features, "load_pixels", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cached_features(encoder, pictures, CONFIG, cache)
    assert list(cache.iterdir()) == []
    assert len(cached_features(encoder, pictures, CONFIG, cache)) == len(pictures)


def test_the_default_cache_lies_below_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "captioner" / "features"
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # counts as unset, says the XDG specification
    assert default_cache() == Path.home() / ".cache" / "captioner" / "features"
