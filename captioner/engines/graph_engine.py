"""Runs an exported network: its two graphs, whatever runtime reads them, and numpy arrays in between.

What the graphs take and give, by name (``captioner.export`` writes them): ``encoder`` pixels → grid and first state;
``decoder`` tokens, state and grid → log-probabilities, next state and weights. Parts that an architecture does not
have, such as the memory cells of a GRU, are left out on both sides.

Shapes: B images, K rows an image, N = B·K, V vocabulary, P grid positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from captioner.engines import Array, FloatArray, IntArray

ENCODER, DECODER = "encoder", "decoder"
PIXELS, TOKENS, SUMMARY, LOG_PROBS, WEIGHTS = "pixels", "tokens", "summary", "log_probs", "weights"
GRID = ("values", "keys")
STATE = ("hidden", "cell", "said")
NEXT = "next_"  # before the name of a part of the state: what it is after the step

Parts = dict[str, Array]
"""A grid or a state: arrays by name, a row an image or a row a sequence."""


class Graph(Protocol):
    """One graph, ready to run; several threads may call it at once."""

    inputs: tuple[str, ...]

    def __call__(self, values: Mapping[str, Array]) -> Parts:
        """Inputs by name → outputs by name, which are the caller's own."""
        ...


class GraphEngine:
    """An engine of two graphs.

    Args:
        encoder, decoder: the graphs.
        name: of the runtime, with what it was asked for.
        at_once: how many pictures the encoder is given at a time; what it computes in between then stays in the cache.
    """

    def __init__(self, encoder: Graph, decoder: Graph, *, name: str, at_once: int) -> None:
        self.name = name
        self._encoder, self._decoder = encoder, decoder
        self._at_once = at_once
        self._state = [part for part in STATE if part in decoder.inputs]
        self._grid = [part for part in GRID if part in decoder.inputs]

    def encode(self, pixels: FloatArray) -> Parts:
        """See :meth:`captioner.engines.Engine.encode`."""
        starts = range(0, len(pixels), self._at_once)
        grids = [self._encoder({PIXELS: pixels[start : start + self._at_once]}) for start in starts]
        if len(grids) == 1:
            return grids[0]
        return {part: np.concatenate([grid[part] for grid in grids]) for part in grids[0]}

    def summary(self, grid: Parts) -> FloatArray:
        """See :meth:`captioner.engines.Engine.summary`."""
        return grid[SUMMARY]

    def start(self, grid: Parts) -> Parts:
        """See :meth:`captioner.engines.Engine.start`; the encoder's graph has computed it."""
        return {part: grid[part] for part in self._state}

    def step(self, tokens: IntArray, state: Parts, grid: Parts) -> tuple[FloatArray, Parts, FloatArray]:
        """See :meth:`captioner.engines.Engine.step`."""
        rows = {TOKENS: tokens.reshape(len(grid[SUMMARY]), -1)}
        outputs = self._decoder(rows | state | {part: grid[part] for part in self._grid})
        return outputs[LOG_PROBS], {part: outputs[NEXT + part] for part in self._state}, outputs[WEIGHTS]

    def select(self, value: Parts, rows: IntArray) -> Parts:
        """See :meth:`captioner.engines.Engine.select`."""
        return {part: array[rows] for part, array in value.items()}

    def use_cores(self, number: int) -> None:
        """See :meth:`captioner.engines.Engine.use_cores`; a runtime has one number from the start, whoever calls."""
