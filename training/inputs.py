"""Where the trainer's grids come from: cached features of a frozen encoder, or augmented pixels of a learning one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from captioner.config import ImageConfig
from captioner.engines import Array
from captioner.images import open_image
from captioner.model import CaptionModel, Grid
from training.augmentation import augment
from training.recipe import Stage

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


class Inputs(Protocol):
    """Pictures of a training set, ready for the model."""

    def load(self, images: Array, random: np.random.Generator) -> Tensor:
        """Read and augment the pictures of the given numbers; runs ahead, beside the model."""
        ...

    def grid(self, model: CaptionModel, loaded: Tensor) -> Grid:
        """What the decoder attends to."""
        ...


class Features:
    """Cached features of a frozen encoder.

    Args:
        features: (images, P, D).
        rows: of the grid; P is a multiple of it.
        flip: mirror half of the grids, which stands for mirroring the pictures.
    """

    def __init__(self, features: Array, rows: int, *, flip: bool) -> None:
        self._features, self._rows, self._flip = features, rows, flip

    def load(self, images: Array, random: np.random.Generator) -> Tensor:
        """(B, P, D) features; see :meth:`Inputs.load`."""
        features = np.asarray(self._features[images])
        grids = features.reshape(len(images), self._rows, -1, features.shape[-1])  # (B, rows, columns, D)
        if self._flip:
            mirrored = random.random(len(images)) < 0.5
            grids[mirrored] = grids[mirrored, :, ::-1]
        return torch.from_numpy(grids.reshape(features.shape)).float()

    def grid(self, model: CaptionModel, loaded: Tensor) -> Grid:
        """See :meth:`Inputs.grid`."""
        return model.read(loaded)


class Pictures:
    """Pixels for an encoder that learns.

    Args:
        paths: of the training images.
        config: how pictures are prepared.
        stage: its ``flip``, ``crop`` and ``colour`` augment them.
    """

    def __init__(self, paths: Sequence[Path], config: ImageConfig, stage: Stage) -> None:
        self._paths, self._config, self._stage = paths, config, stage

    def load(self, images: Array, random: np.random.Generator) -> Tensor:
        """(B, 3, H, W) normalised pixels; see :meth:`Inputs.load`."""
        pixels = [augment(open_image(self._paths[image]), self._config, self._stage, random) for image in images]
        return torch.from_numpy(np.stack(pixels)).to(memory_format=torch.channels_last)

    def grid(self, model: CaptionModel, loaded: Tensor) -> Grid:
        """See :meth:`Inputs.grid`."""
        return model.encode(loaded)


def prefetch(prepare: Callable[[Item], Prepared], items: Iterable[Item]) -> Iterator[Prepared]:
    """``map(prepare, items)``, one item ahead in another thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = None
        for item in items:
            following = pool.submit(prepare, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
