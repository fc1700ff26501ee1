"""The tiny model that every room's tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captioner.checkpoint import ModelInfo
from captioner.config import ImageConfig, ModelConfig
from captioner.decoding import DecodingOptions
from captioner.tokens import Vocabulary

if TYPE_CHECKING:
    from captioner.model import CaptionModel

WORDS = ["a", "dog", "cat", "runs", "sits", "on", "the", "grass", "sofa", "red"]


def make_info() -> ModelInfo:
    """A small model over the first blocks of its backbone, for 32 x 64 pictures: a grid of 2 x 4."""
    vocabulary = Vocabulary.build([WORDS])
    return ModelInfo(
        name="tiny",
        model=ModelConfig(
            vocabulary_size=len(vocabulary),
            grid_node="features.7",
            grid_rows=2,
            grid_columns=4,
            grid_features=64,
            value_size=10,
            attention_size=6,
            embedding_size=8,
            hidden_size=12,
        ),
        vocabulary=vocabulary,
        image=ImageConfig(height=32, width=64),
        decoding=DecodingOptions(max_length=8),
        description="A random model for tests.",
        figures={"dev": {"scores": {"CIDEr": 0.125}}},
        provenance={"images": {"train": 3, "dev": 2}},
    )


def make_model(info: ModelInfo) -> CaptionModel:
    """Random weights, always the same, in evaluation mode. Needs torch.

    Batch normalisation is fitted to noise: with its initial statistics the features nearly vanish, and every picture
    would get the same caption. Large weights in the decoder give it opinions: captions of several words and of several
    lengths, clearly different from picture to picture.
    """
    import torch
    from untrained import await_statistics

    from captioner.encoder import grid_shape
    from captioner.model import CaptionModel

    shape = grid_shape(info.model.encoder, info.model.grid_node, info.image.height, info.image.width)
    assert shape == (info.model.grid_rows, info.model.grid_columns, info.model.grid_features)
    torch.manual_seed(7)
    model = CaptionModel(info.model)
    await_statistics(model)
    with torch.no_grad():
        model.encode(torch.randn(32, 3, info.image.height, info.image.width))
        for name, parameter in model.named_parameters():
            if not name.startswith(("encoder.", "reader.")):
                parameter.mul_(4)
        model.output.bias[Vocabulary.eos] += 1
    return model.eval()
