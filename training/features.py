"""Encoder features of an image set, computed once and kept on disk.

A cache file is named by a hash of all that decides its content: the encoder's weights, the image settings and the
files. So a change of any makes a new file, and nothing stale is ever read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from captioner.config import ImageConfig
from captioner.encoder import GridEncoder
from captioner.engines import Array
from captioner.images import load_pixels

BATCH = 32


def default_cache() -> Path:
    """Where features are kept unless told otherwise: below the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "captioner" / "features"


def cached_features(encoder: GridEncoder, images: Sequence[Path], config: ImageConfig, cache: Path) -> Array:
    """Features of ``images``, read from ``cache`` where they are there, else computed and put there.

    Returns:
        (images, P, D) float16, mapped from disk.
    """
    path = cache / f"{encoder.name}-{_fingerprint(encoder, images, config)}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            _write_features(partial, encoder, images, config)
            partial.replace(path)  # whole or not at all, whoever else is writing
        finally:
            partial.unlink(missing_ok=True)
    features: Array = np.load(path, mmap_mode="r")
    return features


@torch.inference_mode()
def _write_features(path: Path, encoder: GridEncoder, images: Sequence[Path], config: ImageConfig) -> None:
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    out: np.memmap[Any, Any] | None = None
    with tqdm(total=len(images), desc="features", unit="image") as progress:
        for start in range(0, len(images), BATCH):
            pixels = np.stack([load_pixels(image, config) for image in images[start : start + BATCH]])
            batch = torch.from_numpy(pixels).to(device, memory_format=torch.channels_last)
            grid = encoder(batch)  # in full precision: bf16 would round what the decoder is to learn from by a tenth
            if out is None:
                shape = (len(images), *grid.shape[1:])
                out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
            out[start : start + len(grid)] = grid.half().cpu().numpy()
            progress.update(len(grid))
    encoder.train(was_training)
    if out is not None:
        out.flush()


def _fingerprint(encoder: GridEncoder, images: Sequence[Path], config: ImageConfig) -> str:
    digest = hashlib.sha256()
    digest.update(json.dumps(["fp32", encoder.name, encoder.node, config.to_dict()]).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for image in images:
        status = image.stat()
        digest.update(f"{image.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:20]
