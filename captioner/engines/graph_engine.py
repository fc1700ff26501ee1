"""Runs an exported network: its two graphs, whatever runtime reads them, and numpy arrays in between.

What the graphs take and give, by name (``captioner.export`` writes them): ``encoder`` pixels → grid and first state;
``decoder`` tokens, how many likely ones to tell, state and grid → logits of all tokens, the likeliest with their
log-probabilities, next state and weights. Parts that an architecture does not have, such as the memory cells of a GRU,
are left out on both sides.

Shapes: B images, K rows an image, N = B·K, V vocabulary, M candidates of a row, P grid positions.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from captioner.engines import Array, Engine, FloatArray, IntArray, Pixels, stack
from captioner.engines.candidates import Candidates

ENCODER, DECODER = "encoder", "decoder"
PIXELS, SUMMARY, TOKENS, COUNT, WEIGHTS = "pixels", "summary", "tokens", "count", "weights"
LOGITS, BEST, BEST_LOG_PROBS = "logits", "best", "best_log_probs"
GRID = ("values", "keys")
STATE = ("hidden", "cell", "said")
NEXT = "next_"  # before the name of a part of the state: what it is after the step

IMAGES_A_LANE = 8  # at least: of fewer the whole engine makes as much, with less memory

log = logging.getLogger(__name__)

Parts = dict[str, Array]
"""A grid or a state: arrays by name, a row an image or a row a sequence."""


class Graph(Protocol):
    """One graph, ready to run; several threads may call it at once."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __call__(self, values: Mapping[str, Array], outputs: Sequence[str]) -> Parts:
        """Inputs by name → the outputs that are asked for, by name, which are the caller's own."""
        ...


class OneOrMany:
    """A graph of which there are two: one for a single image, whose shapes are known ahead, and one for any number."""

    def __init__(self, one: Graph, many: Graph) -> None:
        self._one, self._many = one, many
        self.inputs, self.outputs = many.inputs, many.outputs

    def __call__(self, values: Mapping[str, Array], outputs: Sequence[str]) -> Parts:
        """See :class:`Graph`."""
        single = all(len(value) == 1 for value in values.values())
        return (self._one if single else self._many)(values, outputs)


class GraphEngine:
    """An engine of two graphs.

    Args:
        encoder, decoder: the graphs.
        name: of the runtime, with what it was asked for.
        at_once: how many pictures the encoder is given at a time; what it computes in between then stays in the cache.
        lanes: how many parts of a batch can be computed side by side.
        open_lanes: opens the engine that does, which takes time and memory; None where there is none to be had.
    """

    def __init__(
        self,
        encoder: Graph,
        decoder: Graph,
        *,
        name: str,
        at_once: int,
        lanes: int = 1,
        open_lanes: Callable[[], Engine | None] = lambda: None,
    ) -> None:
        self.name = name
        self._count, self._open_lanes = lanes, open_lanes
        self._opening_lanes = threading.Lock()
        self._lane: Engine | None = None  # never the engine itself: graphs are gone as soon as their engine is
        self._opened = False
        self._encoder, self._decoder = encoder, decoder
        self._at_once = at_once
        self._state = [part for part in STATE if part in decoder.inputs]
        self._grid = [part for part in GRID if part in decoder.inputs]
        self._after = [WEIGHTS, *(NEXT + part for part in self._state)]

    def encode(self, pixels: Pixels) -> Parts:
        """See :meth:`captioner.engines.Engine.encode`."""
        # Stacked some at a time, which stay in the cache, and in memory that the process has already.
        parts = (stack(pixels[start : start + self._at_once]) for start in range(0, len(pixels), self._at_once))
        grids = [self._encoder({PIXELS: part}, self._encoder.outputs) for part in parts]
        if len(grids) == 1:
            return grids[0]
        return {part: np.concatenate([grid[part] for grid in grids]) for part in grids[0]}

    def summary(self, grid: Parts) -> FloatArray:
        """See :meth:`captioner.engines.Engine.summary`."""
        return grid[SUMMARY]

    def start(self, grid: Parts) -> Parts:
        """See :meth:`captioner.engines.Engine.start`; the encoder's graph has computed it."""
        return {part: grid[part] for part in self._state}

    def step(
        self, tokens: IntArray, state: Parts, grid: Parts, count: int | None = None
    ) -> tuple[Candidates, Parts, FloatArray]:
        """See :meth:`captioner.engines.Engine.step`."""
        asked = {TOKENS: tokens, COUNT: np.array(1 if count is None else count)}
        given = asked | state | {part: grid[part] for part in self._grid}
        if count is None:
            outputs = self._decoder(given, [LOGITS, *self._after])
            candidates = Candidates(_log_softmax(outputs[LOGITS]))
        else:
            outputs = self._decoder(given, [BEST, BEST_LOG_PROBS, *self._after])
            candidates = Candidates(outputs[BEST_LOG_PROBS], outputs[BEST])
        return candidates, {part: outputs[NEXT + part] for part in self._state}, outputs[WEIGHTS]

    def select(self, value: Parts, rows: IntArray) -> Parts:
        """See :meth:`captioner.engines.Engine.select`."""
        return {part: array.take(rows, axis=0) for part, array in value.items()}

    def lanes(self, images: int, /) -> Sequence[Engine]:
        """See :meth:`captioner.engines.Engine.lanes`."""
        if self._count == 1 or images < self._count * IMAGES_A_LANE:
            return [self]
        with self._opening_lanes:
            if not self._opened:
                self._opened = True
                try:
                    self._lane = self._open_lanes()
                except Exception as error:  # whatever it is, this engine works
                    log.warning("%s cannot compute parts of a batch side by side: %s", self.name, error)
            return [self] if self._lane is None else [self._lane] * self._count

    def use_cores(self, number: int) -> None:
        """See :meth:`captioner.engines.Engine.use_cores`; a runtime has one number from the start, whoever calls."""


def _log_softmax(logits: FloatArray) -> FloatArray:
    """(N, V) logits → their log-probabilities, in place."""
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits
