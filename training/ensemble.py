"""Several models as one engine: each predicts, and their mean decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captioner.checkpoint import ModelInfo, load_model
from captioner.engines import FloatArray, Grid, IntArray, State
from captioner.engines.torch_engine import TorchEngine
from captioner.errors import DataError
from training.autocast import autocast


class Ensemble:
    """An engine of which grid and state are those of all its members.

    Args:
        engines: of models with one vocabulary, for pictures prepared in one way.
    """

    def __init__(self, engines: Sequence[TorchEngine]) -> None:
        self._engines = list(engines)
        self.device = self._engines[0].device
        self.name = f"mean of {len(self._engines)}, {self._engines[0].name}"

    def encode(self, pixels: FloatArray) -> Grid:
        """See :meth:`captioner.engines.Engine.encode`."""
        return [engine.encode(pixels) for engine in self._engines]

    def start(self, grid: Grid) -> State:
        """See :meth:`captioner.engines.Decoder.start`."""
        return [engine.start(own) for engine, own in zip(self._engines, grid, strict=True)]

    def step(self, tokens: IntArray, state: State, grid: Grid) -> tuple[FloatArray, State, FloatArray]:
        """See :meth:`captioner.engines.Decoder.step`; probabilities and attention weights are means."""
        steps = [
            engine.step(tokens, own_state, own_grid)
            for engine, own_state, own_grid in zip(self._engines, state, grid, strict=True)
        ]
        log_probs, states, weights = zip(*steps, strict=True)
        mean = np.logaddexp.reduce(log_probs, axis=0) - math.log(len(steps))
        return mean.astype(np.float32), list(states), np.mean(weights, axis=0, dtype=np.float32)

    def select(self, value: Grid | State, rows: IntArray) -> Grid | State:
        """See :meth:`captioner.engines.Decoder.select`."""
        return [engine.select(own, rows) for engine, own in zip(self._engines, value, strict=True)]

    @torch.inference_mode()
    def expect(self, grid: Grid, tokens: Tensor) -> Tensor:
        """Teacher forcing: (N, T) tokens, from bos on → (N, T, V) mean probabilities."""
        mean = torch.zeros(())
        for engine, own in zip(self._engines, grid, strict=True):
            with autocast(self.device):
                logits, _ = engine.model(own, tokens.to(self.device))
            mean = mean.to(self.device) + logits.float().softmax(dim=-1) / len(self._engines)
        return mean


def load_ensemble(models: Sequence[str | Path], device: str | None = None) -> tuple[Ensemble, ModelInfo]:
    """Several models by name or directory, and what the first says of itself.

    Raises:
        DataError: their vocabularies differ, or how they prepare pictures.
        ModelError: one cannot be loaded.
    """
    loaded = [load_model(model) for model in models]
    _, first = loaded[0]
    for name, (_, info) in zip(models, loaded, strict=True):
        if info.vocabulary.tokens != first.vocabulary.tokens or info.image != first.image:
            raise DataError(
                f"{name} and {models[0]} do not fit together: train them on the same data, with the same min_count, "
                "tokenizer and image settings"
            )
    return Ensemble([TorchEngine(model, device=device) for model, _ in loaded]), first
