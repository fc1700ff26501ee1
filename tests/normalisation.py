"""Batch normalisation for networks that were never trained."""

from __future__ import annotations

from torch import nn


def await_statistics(network: nn.Module) -> None:
    """Make batch normalisation take the plain averages of whatever passes through, until the network is evaluated.

    With its initial statistics the features of a random backbone nearly vanish, and every picture looks the same.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # plain averages
            module.train()
