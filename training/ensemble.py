"""Several models as one engine: each predicts, and their mean decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from captioner.captioner import Captioner
from captioner.checkpoint import load_model, resolve
from captioner.decoding.expectation import Expectation
from captioner.engines import Engine, FloatArray, Grid, IntArray, Pixels, State
from captioner.engines.candidates import Candidates
from captioner.engines.torch_engine import TorchEngine
from captioner.errors import DataError


class Ensemble:
    """An engine of which grid and state are those of all its members.

    Args:
        engines: of models with one vocabulary, for pictures prepared in one way.
    """

    def __init__(self, engines: Sequence[TorchEngine]) -> None:
        self._engines = list(engines)
        self.name = f"mean of {len(self._engines)}, {self._engines[0].name}"

    def encode(self, pixels: Pixels) -> Grid:
        """See :meth:`captioner.engines.Engine.encode`."""
        return [engine.encode(pixels) for engine in self._engines]

    def summary(self, grid: Grid) -> FloatArray:
        """See :meth:`captioner.engines.Engine.summary`; that of the first, whose expectations judge for all."""
        return self._engines[0].summary(grid[0])

    def start(self, grid: Grid) -> State:
        """See :meth:`captioner.engines.Decoder.start`."""
        return [engine.start(own) for engine, own in zip(self._engines, grid, strict=True)]

    def step(
        self, tokens: IntArray, state: State, grid: Grid, count: int | None = None
    ) -> tuple[Candidates, State, FloatArray]:
        """See :meth:`captioner.engines.Decoder.step`; probabilities and attention weights are means."""
        steps = [
            engine.step(tokens, own_state, own_grid)
            for engine, own_state, own_grid in zip(self._engines, state, grid, strict=True)
        ]
        candidates, states, weights = zip(*steps, strict=True)
        mean = np.logaddexp.reduce([each.log_probs for each in candidates], axis=0) - math.log(len(steps))
        offered = Candidates.likeliest(mean.astype(np.float32), count)
        return offered, list(states), np.mean(weights, axis=0, dtype=np.float32)

    def select(self, value: Grid | State, rows: IntArray) -> Grid | State:
        """See :meth:`captioner.engines.Decoder.select`."""
        return [engine.select(own, rows) for engine, own in zip(self._engines, value, strict=True)]

    def lanes(self, _images: int, /) -> Sequence[Engine]:
        """See :meth:`captioner.engines.Engine.lanes`."""
        return [self]

    def use_cores(self, number: int) -> None:
        """See :meth:`captioner.engines.Engine.use_cores`."""
        for engine in self._engines:
            engine.use_cores(number)


def load_ensemble(models: Sequence[str | Path], *, device: str | None = None, precision: str = "fp32") -> Captioner:
    """Several models by name or directory as one captioner, which decodes with the options of the first.

    Raises:
        DataError: their vocabularies or grids differ, or how they prepare pictures.
        ModelError: one cannot be loaded.
        OptionError: the device or precision is unknown or not there.
    """
    loaded = [load_model(model) for model in models]
    _, first = loaded[0]
    for name, (_, info) in zip(models, loaded, strict=True):
        grid = (info.model.grid_rows, info.model.grid_columns)
        same = (info.vocabulary, info.tokenizer, info.image) == (first.vocabulary, first.tokenizer, first.image)
        if not same or grid != (first.model.grid_rows, first.model.grid_columns):
            raise DataError(
                f"{name} and {models[0]} cannot speak together: train them on the same data with the same tokenizer, "
                "min_count, pictures and grid"
            )
    info = replace(first, name="+".join(info.name for _, info in loaded))
    engine = Ensemble([TorchEngine(model, device=device, precision=precision) for model, _ in loaded])
    return Captioner(engine, info, expectation=Expectation.load(resolve(models[0])))
