"""What runs the network. Decoding sees an :class:`Engine` and numpy arrays, never a framework's model.

Shapes: B images, N rows (partial sequences, image-major), P grid positions, F features as the decoder reads them,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from captioner.engines.candidates import Candidates

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Normalised, of B images: (B, 3, H, W), or one after the other (3, H, W).
Pixels = FloatArray | Sequence[FloatArray]

# The engine's own values: opaque to decoding, which only hands them back.
Grid = Any
State = Any


class Decoder(Protocol):
    """A captioning network from the grid on; its methods keep nothing, so that several threads may use it at once."""

    def start(self, grid: Grid) -> State:
        """The state before the first token, one row an image."""
        ...

    def step(
        self, tokens: IntArray, state: State, grid: Grid, count: int | None = None
    ) -> tuple[Candidates, State, FloatArray]:
        """Read one token, offer what may come next.

        Args:
            tokens: (N,) the previous token of each row; N is a multiple of the grid's B, and the rows of one image
                stand together.
            state: of the N rows.
            grid: of the B images.
            count: how many of the likeliest tokens each row is to be offered; None offers all.

        Returns:
            The candidates of the N rows, the next state, (N, P) attention weights.
        """
        ...

    def select(self, value: Grid | State, rows: IntArray) -> Grid | State:
        """The given rows of a state or a grid, in the given order, repeats allowed."""
        ...


class Engine(Decoder, Protocol):
    """A captioning network, ready to run."""

    name: str

    def encode(self, pixels: Pixels) -> Grid:
        """The pixels of B images → their grid."""
        ...

    def summary(self, grid: Grid) -> FloatArray:
        """The grid of B images → (B, F), the mean of its values: what each of them shows on the whole."""
        ...

    def lanes(self, images: int, /) -> Sequence[Engine]:
        """Engines that compute parts of a batch of so many images side by side, each for a thread of the caller's.

        They share the cores, and compute the same as this one, but for what a computer rounds off. The first time that
        there are several, they are opened, which takes a moment and memory of their own. Where nothing is gained so, as
        with few images, there is this engine alone.
        """
        ...

    def use_cores(self, number: int) -> None:
        """Let the calling thread's work use so many cores, where the engine can tell threads apart."""
        ...


def stack(pixels: Pixels) -> FloatArray:
    """The pixels of B images as one array; what is one already, or a single image, is not copied."""
    if isinstance(pixels, np.ndarray):
        return pixels
    return pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
