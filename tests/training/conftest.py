"""A toy dataset, a toy recipe and the models that they make: a whole training run in a second or two."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from untrained import await_statistics

import captioner
from captioner.encoder import GridEncoder
from captioner.images import load_pixels
from training.datasets import Example, read_dataset
from training.recipe import Recipe, load_recipe
from training.train import train

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("square", "circle", "cross")
SIDE = 32

# The grid is read early in the backbone, where it is small and quick and still has 4 x 4 positions on such pictures.
TOY_RECIPE = f"""
name = "toy"
description = "Coloured shapes."
seed = 3
min_count = 1
encoder = "mobilenet_v2"
grid_node = "features.4"
value_size = 24
attention_size = 8
embedding_size = 16
hidden_size = 24
dropout = 0.1
label_smoothing = 0.05
average_decay = 0.8
image = {{ height = {SIDE}, width = {SIDE} }}
decoding = {{ beam_size = 2, max_length = 8 }}

[[stages]]
epochs = 2
images_per_batch = 4
decoder_rate = 1e-2
attention_penalty = 0.01

[[stages]]
epochs = 2
train_encoder = true
images_per_batch = 4
captions_per_image = 2
decoder_rate = 2e-3
encoder_rate = 1e-4
crop = 0.8
colour = 0.1
"""


def draw_shape(colour: str, shape: str) -> Image.Image:
    """A shape amid grey, symmetric, so that mirroring does not change what it is."""
    picture = Image.new("RGB", (SIDE, SIDE), "grey")
    draw = ImageDraw.Draw(picture)
    if shape == "square":
        draw.rectangle((8, 8, 23, 23), colour)
    elif shape == "circle":
        draw.ellipse((8, 8, 23, 23), colour)
    else:
        draw.rectangle((14, 8, 17, 23), colour)
        draw.rectangle((8, 14, 23, 17), colour)
    return picture


def write_split(folder: Path, split: str, kinds: Sequence[tuple[str, str]]) -> None:
    """Pictures in ``split/`` and their two captions each in ``split.jsonl``."""
    (folder / split).mkdir()
    rows = []
    for colour, shape in kinds:
        name = f"{split}/{colour}-{shape}.png"
        draw_shape(colour, shape).save(folder / name)
        captions = [f"A {colour} {shape}.", f"One {shape}, all {colour}."]
        rows.append(json.dumps({"image": name, "captions": captions}))
    (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training pictures, and copies of them for dev, as JSONL; there is no test split.

    Learning the pictures by heart is all that is asked of a toy.
    """
    folder = tmp_path_factory.mktemp("toy")
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    write_split(folder, "train", kinds)
    write_split(folder, "dev", kinds)
    return folder


@pytest.fixture(scope="session")
def toy_examples(toy_data: Path) -> dict[str, list[Example]]:
    """The toy dataset, read."""
    return read_dataset(toy_data)


@pytest.fixture(scope="session")
def toy_weights(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random encoder weights with fitting batch-norm statistics, as a file.

    Without the statistics, features of a random MobileNetV2 fade from layer to layer, and nothing could be learnt.
    """
    torch.manual_seed(0)
    encoder = GridEncoder("mobilenet_v2", "features.4")
    recipe = load_toy_recipe(toy_data.parent, [])
    pixels = [load_pixels(path, recipe.image) for path in sorted((toy_data / "train").iterdir())]
    await_statistics(encoder)
    with torch.no_grad():
        encoder(torch.from_numpy(np.stack(pixels)))
    path = tmp_path_factory.mktemp("weights") / "toy-encoder.pth"
    torch.save(encoder.backbone.state_dict(), path)
    return path


def load_toy_recipe(folder: Path, overrides: Sequence[str]) -> Recipe:
    """The toy recipe through the door that every recipe takes: a TOML file and overrides."""
    path = folder / "toy.toml"
    path.write_text(TOY_RECIPE)
    return load_recipe(str(path), overrides)


@pytest.fixture(scope="session")
def toy_recipe(toy_weights: Path) -> Recipe:
    """Two epochs on features of the frozen encoder, two from pixels."""
    return load_toy_recipe(toy_weights.parent, [f"encoder_weights={toy_weights}"])


@pytest.fixture(scope="session")
def toy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One feature cache for all runs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def toy_run(toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of the toy recipe. Read it only."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    train(toy_recipe, toy_data, folder, cache=toy_cache)
    return folder


@pytest.fixture(scope="session")
def learnt_run(toy_weights: Path, toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that is long enough to learn. Read it only, and copy its model before writing into it."""
    overrides = [f"encoder_weights={toy_weights}", "dropout=0", "patience=30"]
    overrides += ["stages.0.epochs=30", "stages.0.decoder_rate=2e-2"]
    folder = tmp_path_factory.mktemp("runs") / "learnt"
    train(load_toy_recipe(toy_weights.parent, overrides), toy_data, folder, cache=toy_cache)
    return folder


@pytest.fixture(scope="session")
def learnt_captioner(learnt_run: Path) -> captioner.Captioner:
    """The model of that run, loaded on the CPU in fp32."""
    return captioner.load(learnt_run / "model", device="cpu", precision="fp32")
