"""Tiny pictures and models that every room's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from untrained import await_statistics

import captioner
from captioner.checkpoint import ModelInfo, save_model
from captioner.config import ImageConfig, ModelConfig
from captioner.decoding import DecodingOptions
from captioner.encoder import grid_shape
from captioner.model import CaptionModel
from captioner.tokens import Vocabulary

settings.register_profile("captioner", deadline=None)  # on a busy machine a deadline is a matter of luck
settings.load_profile("captioner")

WORDS = ["a", "dog", "cat", "runs", "sits", "on", "the", "grass", "sofa", "red"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is exported here stays out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTIONER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_info() -> ModelInfo:
    """A small model over the first blocks of its backbone, for 32 x 64 pictures: a grid of 2 x 4."""
    vocabulary = Vocabulary.build([WORDS])
    image = ImageConfig(height=32, width=64)
    rows, columns, features = grid_shape("mobilenet_v2", "features.7", image.height, image.width)
    return ModelInfo(
        name="tiny",
        model=ModelConfig(
            vocabulary_size=len(vocabulary),
            grid_node="features.7",
            grid_rows=rows,
            grid_columns=columns,
            grid_features=features,
            value_size=10,
            attention_size=6,
            embedding_size=8,
            hidden_size=12,
        ),
        vocabulary=vocabulary,
        image=image,
        decoding=DecodingOptions(max_length=8),
        description="A random model for tests.",
        figures={"dev": {"scores": {"CIDEr": 0.125}}},
        provenance={"images": {"train": 3, "dev": 2}},
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_info: ModelInfo) -> CaptionModel:
    """Random weights, always the same, in evaluation mode.

    Batch normalisation is fitted to noise: with its initial statistics the features nearly vanish, and every picture
    would get the same caption. Large weights in the decoder give it opinions: captions of several words and of several
    lengths, clearly different from picture to picture.
    """
    torch.manual_seed(7)
    model = CaptionModel(tiny_info.model)
    await_statistics(model)
    with torch.no_grad():
        model.encode(torch.randn(32, 3, tiny_info.image.height, tiny_info.image.width))
        for name, parameter in model.named_parameters():
            if not name.startswith(("encoder.", "reader.")):
                parameter.mul_(4)
        model.output.bias[Vocabulary.eos] += 1
    return model.eval()


@pytest.fixture(scope="session")
def tiny_model_dir(tiny_model: CaptionModel, tiny_info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model on disk."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_model(directory, tiny_model, tiny_info)
    return directory


@pytest.fixture(scope="session")
def tiny_captioner(tiny_model_dir: Path) -> captioner.Captioner:
    """The tiny model under torch, on the CPU in fp32."""
    return captioner.load(tiny_model_dir, engine="torch", device="cpu")


@pytest.fixture
def picture() -> Image.Image:
    """A small picture with structure: a gradient with a bright square."""
    x, y = np.meshgrid(np.arange(80), np.arange(60))
    pixels = np.stack((x * 3, y * 4, 255 - x * 3), axis=-1).astype(np.uint8)
    pixels[20:40, 30:50] = 255
    return Image.fromarray(pixels)


@pytest.fixture
def photo(picture: Image.Image, tmp_path: Path) -> Path:
    """The picture as a JPEG file."""
    path = tmp_path / "photo.jpg"
    picture.save(path, quality=95)
    return path
