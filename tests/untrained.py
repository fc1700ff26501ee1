"""Networks that were never trained, and yet tell one picture from another."""

from __future__ import annotations

import torch
from torch import nn

from captioner.checkpoint import ModelInfo
from captioner.model import CaptionModel


def await_statistics(network: nn.Module) -> None:
    """Make batch normalisation take the plain averages of whatever passes through, until the network is evaluated.

    With its initial statistics the features of a random backbone nearly vanish, and every picture looks the same.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # plain averages
            module.train()


def opinionated_model(info: ModelInfo, *, seed: int, scale: float, embedding: float) -> CaptionModel:
    """Random weights, large enough for opinions, over features as large as a trained backbone's; in evaluation mode.

    Args:
        info: the architecture and the size of pictures.
        seed: of the weights.
        scale: of all weights behind the encoder.
        embedding: of those of the embedding, once more.
    """
    torch.manual_seed(seed)
    model = CaptionModel(info.model)
    await_statistics(model)
    with torch.no_grad():
        model.encode(torch.randn(8, 3, info.image.height, info.image.width))
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder."):
                parameter.mul_(scale)
        model.embedding.weight.mul_(embedding)
    return model.eval()
