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
from training.accumulation import in_parts
from training.augmentation import Augmentation, augment

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


class Inputs(Protocol):
    """Pictures of a training set, ready for the model."""

    def load(self, images: Array, random: np.random.Generator) -> Tensor:
        """Read and augment the pictures of the given numbers; runs ahead, beside the model."""
        ...

    def grid(self, model: CaptionModel, loaded: Tensor, parts: int = 1) -> Grid:
        """What the decoder attends to. Where the encoder learns, it reads the pictures in so many parts."""
        ...


class Features:
    """What a frozen encoder, or its frozen part, made of the pictures, once.

    Args:
        features: (V, images, P, D) grids, or (V, images, C, H, W) what lies behind ``node``; see
            :func:`training.features.cached_features`. Of V versions of a picture, one is taken at random.
        node: the last frozen module, where others learn.
        mirror: the rows of the grids, if half of the grids are to be mirrored, which stands for mirroring the pictures.
    """

    def __init__(self, features: Array, *, node: str = "", mirror: int = 0) -> None:
        self._features, self._node, self._mirror = features, node, mirror

    def load(self, images: Array, random: np.random.Generator) -> Tensor:
        """(B, …) features; see :meth:`Inputs.load`."""
        versions = random.integers(len(self._features), size=len(images))
        features = self._features[versions, images].astype(np.float32)
        if self._mirror:
            grids = features.reshape(len(images), self._mirror, -1, features.shape[-1])  # (B, rows, columns, D)
            mirrored = random.random(len(images)) < 0.5
            grids[mirrored] = grids[mirrored, :, ::-1]
            features = grids.reshape(features.shape)
        return torch.from_numpy(features)

    def grid(self, model: CaptionModel, loaded: Tensor, parts: int = 1) -> Grid:
        """See :meth:`Inputs.grid`."""
        if not self._node:
            return model.read(loaded)
        (features,) = in_parts(
            parts,
            lambda behind: (model.encoder.finish(behind, self._node),),
            loaded.to(memory_format=torch.channels_last),
        )
        return model.read(features)


class Pictures:
    """Pixels for an encoder all of which learns.

    Args:
        paths: of the training images.
        config: how pictures are prepared.
        augmentation: how they change from epoch to epoch.
    """

    def __init__(self, paths: Sequence[Path], config: ImageConfig, augmentation: Augmentation) -> None:
        self._paths, self._config, self._augmentation = paths, config, augmentation

    def load(self, images: Array, random: np.random.Generator) -> Tensor:
        """(B, 3, H, W) normalised pixels; see :meth:`Inputs.load`."""
        pixels = [augment(open_image(self._paths[image]), self._config, self._augmentation, random) for image in images]
        return torch.from_numpy(np.stack(pixels)).to(memory_format=torch.channels_last)

    def grid(self, model: CaptionModel, loaded: Tensor, parts: int = 1) -> Grid:
        """See :meth:`Inputs.grid`."""
        (features,) = in_parts(parts, lambda pixels: (model.encoder(pixels),), loaded)
        return model.read(features)


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
