from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.config import ImageConfig
from captioner.encoder import GridEncoder
from captioner.images import load_pixels, open_image
from training import features
from training.augmentation import Augmentation
from training.features import Views, cached_features, default_cache
from training.inputs import Features

CONFIG = ImageConfig(height=32, width=32)
VIEWS = Views(3, Augmentation(crop=0.6, colour=0.3))


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
    assert found.shape == (1, 12, 16, 32)
    np.testing.assert_allclose(found[0], expected, rtol=2e-3, atol=2e-3)


def test_the_second_call_computes_nothing(
    encoder: GridEncoder, pictures: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = np.array(cached_features(encoder, pictures, CONFIG, cache))
    forbid_computing(monkeypatch)
    second = cached_features(encoder, pictures, CONFIG, cache)
    np.testing.assert_array_equal(first, second)
    assert isinstance(second, np.memmap), "thousands of pictures need not fit into memory"
    assert not second.flags.writeable


def test_the_encoder_is_left_as_it_was(encoder: GridEncoder, pictures: list[Path], cache: Path) -> None:
    encoder.train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    cached_features(encoder, pictures[:1], CONFIG, cache)
    assert encoder.training
    after = encoder.state_dict()
    assert list(after) == list(before), "batch normalisation folded away"
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.requires_grad for parameter in encoder.parameters())


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


def test_views_differ_and_are_those_of_augmented_pictures(
    encoder: GridEncoder, pictures: list[Path], cache: Path
) -> None:
    found = np.array(cached_features(encoder, pictures, CONFIG, cache, views=VIEWS), dtype=np.float32)
    plain = np.array(cached_features(encoder, pictures, CONFIG, cache), dtype=np.float32)
    assert found.shape == (3, 12, 16, 32)
    versions = np.concatenate((found, plain))
    for one, other in itertools.combinations(versions, 2):
        assert (np.abs(one - other).mean(axis=(1, 2)) > 0.01).all(), "of each picture, no two versions are alike"
    # And yet a version is of its own picture: among the plain ones that is the nearest far more often than by chance.
    distances = np.abs(found[:, :, None] - plain[0, None, None]).mean(axis=(3, 4))  # (V, images, images)
    assert (distances.argmin(axis=2) == np.arange(12)).mean() > 0.4


def test_views_that_change_nothing_are_the_picture(encoder: GridEncoder, pictures: list[Path], cache: Path) -> None:
    still = Views(2, Augmentation(flip=False))
    plain = cached_features(encoder, pictures, CONFIG, cache)
    for view in cached_features(encoder, pictures, CONFIG, cache, views=still):
        np.testing.assert_array_equal(view, plain[0])


def test_a_view_is_mirrored_half_of_the_time(encoder: GridEncoder, pictures: list[Path], cache: Path) -> None:
    """A picture with a bright left half tells which way round it is."""
    half = Image.new("RGB", (32, 32))
    half.paste("white", (0, 0, 16, 32))
    half.save(pictures[0])
    found = cached_features(encoder, pictures[:1] * 40, CONFIG, cache, views=Views(2))
    assert len(np.unique(found.reshape(80, -1), axis=0)) == 2
    first = (found == found[0, 0]).all(axis=(2, 3))
    assert 20 < first.sum() < 60


def test_views_are_reproducible_and_follow_from_their_seed(
    encoder: GridEncoder, pictures: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached_features(encoder, pictures, CONFIG, cache, views=VIEWS)
    monkeypatch.setattr(features, "BATCH", 5)  # how many are read together decides nothing
    again = cached_features(encoder, pictures, CONFIG, cache.with_name("afresh"), views=VIEWS)
    np.testing.assert_allclose(first, again, rtol=2e-3, atol=2e-3)
    more = cached_features(encoder, pictures, CONFIG, cache, views=replace(VIEWS, count=4))
    np.testing.assert_allclose(more[:3], first, rtol=2e-3, atol=2e-3)
    other = cached_features(encoder, pictures, CONFIG, cache, views=replace(VIEWS, seed=1))
    assert np.abs(first.astype(np.float32) - other).mean() > 0.01


@pytest.mark.parametrize("node", ["features.0.1", "features.1", "features.2", "features.4"])
def test_what_lies_behind_a_node_is_finished_to_the_encoders_grid(
    encoder: GridEncoder, pictures: list[Path], cache: Path, node: str
) -> None:
    behind = cached_features(encoder, pictures, CONFIG, cache, node=node, views=VIEWS)
    grids = cached_features(encoder, pictures, CONFIG, cache, views=VIEWS)
    assert behind.shape[:2] == (3, 12)
    assert behind.ndim == 5
    with torch.no_grad():
        finished = encoder.eval().finish(torch.from_numpy(behind.astype(np.float32)).flatten(0, 1), node)
    np.testing.assert_allclose(finished.unflatten(0, (3, 12)), grids, rtol=1e-2, atol=2e-2)


def test_loading_takes_a_version_of_the_picture_asked_for(
    encoder: GridEncoder, pictures: list[Path], cache: Path
) -> None:
    found = cached_features(encoder, pictures, CONFIG, cache, node="features.2", views=VIEWS)
    loaded = Features(found, node="features.2").load(np.array([7, 7, 7, 7, 2]), np.random.default_rng(0)).numpy()
    taken = (loaded == found[:, [7, 7, 7, 7, 2]]).all(axis=(2, 3, 4))
    assert (taken.sum(axis=0) == 1).all()
    assert taken[:, :4].any(axis=1).sum() > 1, "of four loads, not all the same version"


def files_after(cache: Path, *calls: Callable[[], object]) -> int:
    for call in calls:
        call()
    return len(list(cache.iterdir()))


@pytest.mark.parametrize(
    "views",
    [
        replace(VIEWS, count=2),
        replace(VIEWS, seed=1),
        Views(3, Augmentation(crop=0.7, colour=0.3)),
        Views(3, Augmentation(crop=0.6, colour=0.2)),
        Views(3, Augmentation(crop=0.6, colour=0.3, flip=False)),
        None,
    ],
    ids=["count", "seed", "crop", "colour", "flip", "no views"],
)
def test_other_views_make_new_features(
    encoder: GridEncoder, pictures: list[Path], cache: Path, views: Views | None
) -> None:
    first = partial(cached_features, encoder, pictures[:2], CONFIG, cache, views=VIEWS)
    other = partial(cached_features, encoder, pictures[:2], CONFIG, cache, views=views)
    assert files_after(cache, first, first) == 1
    assert files_after(cache, other, other) == 2


def test_without_views_their_settings_do_not_count(encoder: GridEncoder, pictures: list[Path], cache: Path) -> None:
    none = partial(cached_features, encoder, pictures[:2], CONFIG, cache)
    assert files_after(cache, none, partial(none, views=Views(0, Augmentation(crop=0.5), seed=4))) == 1


def test_each_node_has_its_own_features_and_the_last_one_is_not_taken_for_the_grid(
    encoder: GridEncoder, pictures: list[Path], cache: Path
) -> None:
    nodes = ["", "features.2", "features.4"]
    shapes = [cached_features(encoder, pictures[:2], CONFIG, cache, node=node).shape for node in nodes]
    assert shapes == [(1, 2, 16, 32), (1, 2, 24, 8, 8), (1, 2, 32, 4, 4)]


@pytest.mark.parametrize(
    ("node", "module", "files"),
    [
        ("features.2", "0.0", 2),  # the first convolution
        ("features.2", "2.conv.3", 2),  # the node's own last batch normalisation
        ("features.2", "3.conv.0.0", 1),  # behind the node: it goes on learning
        ("features.2", "4.conv.3", 1),
        ("", "4.conv.3", 2),
    ],
)
def test_only_weights_up_to_the_node_count(
    encoder: GridEncoder, pictures: list[Path], cache: Path, node: str, module: str, files: int
) -> None:
    call = partial(cached_features, encoder, pictures[:2], CONFIG, cache, node=node)
    assert files_after(cache, call) == 1
    with torch.no_grad():
        weight = encoder.backbone.get_submodule(f"features.{module}").weight
        assert isinstance(weight, torch.Tensor)
        weight.add_(0.1)
    assert files_after(cache, call) == files


def test_an_interruption_leaves_nothing_behind(
    encoder: GridEncoder, pictures: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BATCH", 5)
    loaded = []

    def interrupted(path: Path) -> object:
        loaded.append(path)
        if len(loaded) == 8:  # the first batch is written, the second is not
            assert [file.suffix for file in cache.iterdir()] == [".partial"]
            raise KeyboardInterrupt
        return open_image(path)

    with monkeypatch.context() as patch:
        patch.setattr(features, "open_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cached_features(encoder, pictures, CONFIG, cache)
    assert list(cache.iterdir()) == []
    assert cached_features(encoder, pictures, CONFIG, cache).shape[1] == len(pictures)


def test_the_default_cache_lies_below_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "captioner" / "features"
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # counts as unset, says the XDG specification
    assert default_cache() == Path.home() / ".cache" / "captioner" / "features"
