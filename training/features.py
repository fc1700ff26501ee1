"""What a frozen part of the encoder makes of an image set, computed once and kept on disk.

A cache file is named by a hash of all that decides its content: the frozen modules' weights, the image settings, the
augmentation and the files. So a change of any makes a new file, and nothing stale is ever read.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from captioner.config import ImageConfig
from captioner.encoder import GridEncoder
from captioner.engines import Array
from captioner.engines.torch_engine import fold_normalisation
from captioner.images import open_image, to_array
from training.augmentation import Augmentation, augment
from training.distributed import rank

BATCH = 32
AT_ONCE = 4  # pictures that the encoder is given together on a CPU, whose cache they then stay in


@dataclass(frozen=True)
class Views:
    """How many versions of each picture are prepared, and how they are made from it.

    Attributes:
        count: 0 for the picture as it is, once.
        augmentation: what makes the versions differ.
        seed: decides them.
    """

    count: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0


def default_cache() -> Path:
    """Where features are kept unless told otherwise: below the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "captioner" / "features"


def cached_features(
    encoder: GridEncoder,
    images: Sequence[Path],
    config: ImageConfig,
    cache: Path,
    *,
    node: str = "",
    views: Views | None = None,
) -> Array:
    """Features of ``images``, read from ``cache`` where they are there, else computed and put there.

    Args:
        encoder: its weights count as they are.
        images: the pictures' files.
        config: how pictures are prepared.
        cache: the folder.
        node: read the encoder behind this module; empty for its grid.
        views: augmented versions of each picture in place of itself.

    Returns:
        (V, images, P, D), or with ``node`` (V, images, C, H, W), float16, mapped from disk; V is 1 without views.
    """
    views = views or Views()
    path = cache / f"{encoder.name}-{_fingerprint(encoder, node, images, config, views)}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{rank()}-{os.getpid()}.partial")
        try:
            _write_features(partial, encoder, node, images, config, views)
            partial.replace(path)  # whole or not at all, whoever else is writing
        finally:
            partial.unlink(missing_ok=True)
    features: Array = np.load(path, mmap_mode="r")
    return features


@torch.inference_mode()
def _write_features(
    path: Path, encoder: GridEncoder, node: str, images: Sequence[Path], config: ImageConfig, views: Views
) -> None:
    # In full precision: bf16 would round what the decoder is to learn from by a tenth.
    encoder = copy.deepcopy(encoder).eval()
    fold_normalisation(encoder)
    device = next(encoder.parameters()).device
    at_once = AT_ONCE if device.type == "cpu" else BATCH
    run: Callable[[Tensor], Tensor] = (lambda pixels: encoder.begin(pixels, node)) if node else encoder
    count = max(views.count, 1)
    out: np.memmap[Any, Any] | None = None
    with tqdm(total=count * len(images), desc="features", unit="image") as progress:
        for view in range(count):
            random = np.random.default_rng((views.seed, view))
            for start in range(0, len(images), BATCH):
                pictures = [open_image(image) for image in images[start : start + BATCH]]
                if views.count:
                    pixels = [augment(picture, config, views.augmentation, random) for picture in pictures]
                else:
                    pixels = [to_array(picture, config) for picture in pictures]
                batch = torch.from_numpy(np.stack(pixels)).to(device, memory_format=torch.channels_last)
                found = torch.cat([run(few) for few in batch.split(at_once)])
                if out is None:
                    shape = (count, len(images), *found.shape[1:])
                    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
                out[view, start : start + len(found)] = found.half().cpu().numpy()
                progress.update(len(found))
    if out is not None:
        out.flush()


def _fingerprint(encoder: GridEncoder, node: str, images: Sequence[Path], config: ImageConfig, views: Views) -> str:
    digest = hashlib.sha256()
    # The last module's values and the grid that is made of them hold the same numbers in another order.
    settings: list[Any] = [encoder.name, {"behind": node} if node else encoder.node, config.to_dict()]
    if views.count:
        settings += [views.count, views.augmentation.to_dict(), views.seed]
    digest.update(json.dumps(settings).encode())
    for number, (_, module) in enumerate(encoder.modules_through(node or encoder.last)):
        for name, tensor in module.state_dict().items():
            digest.update(f"{number} {name}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for image in images:
        status = image.stat()
        digest.update(f"{image.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:20]
