"""What an ensemble of teachers expects at each step of the training captions, computed once for a student to learn.

Hinton, Vinyals and Dean (2015), "Distilling the knowledge in a neural network", word by word as Kim and Rush (2016),
"Sequence-level knowledge distillation", section 3.1. Several models know more than one, since each errs in its own way;
the student learns what they agree on, and costs what one costs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from captioner.checkpoint import WEIGHTS_NAME, load_model, read_info, resolve
from captioner.engines import Array
from captioner.engines.torch_engine import TorchEngine, pick_device
from captioner.errors import DataError
from captioner.images import load_pixels
from captioner.tokens import Vocabulary
from training.autocast import autocast
from training.batching import Batch, pad_captions
from training.distributed import rank
from training.loss import SoftTargets

CANDIDATES = 24  # tokens kept a step: of 2920 they hold nearly all of what is expected
IMAGES = 16  # encoded together


class Teachers:
    """The mean prediction of several models, for any batch of the training captions.

    Args:
        directories: the models, see :func:`captioner.checkpoint.resolve`.
        images: the training pictures; teachers see them as they are, without augmentation.
        captions: encoded captions of each image, from bos on.
        vocabulary: of the student; the teachers' must be the same.
        cache: where the predictions are kept.

    Raises:
        DataError: a teacher has another vocabulary.
        ModelError: a teacher is not there, or broken.
    """

    def __init__(
        self,
        directories: Sequence[str],
        images: Sequence[Path],
        captions: Sequence[Sequence[Sequence[int]]],
        vocabulary: Vocabulary,
        cache: Path,
    ) -> None:
        for directory in directories:
            check_teacher(directory, vocabulary)
        paths = [resolve(directory) for directory in directories]
        lengths = [len(caption) - 1 for image in captions for caption in image]
        starts = np.concatenate(([0], np.cumsum(lengths)))
        firsts = np.concatenate(([0], np.cumsum([len(image) for image in captions])))
        # Where the predictions of a caption begin: by its image and its number.
        self._starts = [starts[first:last] for first, last in itertools.pairwise(firsts)]
        path = cache / f"teachers-{_fingerprint(paths, images, captions)}.npy"
        if not path.is_file():
            cache.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{rank()}-{os.getpid()}.partial")
            found = _predictions(paths, images, captions, len(vocabulary))
            try:
                with partial.open("wb") as file:
                    np.save(file, found)
                partial.replace(path)  # whole or not at all, whoever else is writing
            finally:
                partial.unlink(missing_ok=True)
        self._predictions: Array = np.load(path)  # (steps, C) of a token and its probability

    def __call__(self, batch: Batch) -> SoftTargets:
        """What is expected of each row; where there is padding, nothing."""
        rows, steps = batch.tokens.shape[0], batch.tokens.shape[1] - 1
        found = np.zeros((rows, steps, self._predictions.shape[1]), dtype=self._predictions.dtype)
        images = batch.images.repeat(rows // len(batch.images))
        lengths = (batch.tokens != Vocabulary.pad).sum(dim=1).numpy() - 1
        for row, (image, number, length) in enumerate(zip(images, batch.captions, lengths, strict=True)):
            if number >= 0:
                start = self._starts[image][number]
                found[row, :length] = self._predictions[start : start + length]
        tokens = torch.from_numpy(found["token"].astype(np.int64))
        return SoftTargets(tokens, torch.from_numpy(found["probability"].astype(np.float32)))


def check_teacher(directory: str, vocabulary: Vocabulary) -> None:
    """Refuse a model that cannot teach a student of this vocabulary.

    Raises:
        DataError: it has another vocabulary.
        ModelError: it is not there, or broken.
    """
    if read_info(directory).vocabulary != vocabulary:
        raise DataError(f"the teacher {directory} has another vocabulary: train it on this data with this min_count")


@torch.inference_mode()
def _predictions(
    paths: Sequence[Path], images: Sequence[Path], captions: Sequence[Sequence[Sequence[int]]], tokens: int
) -> Array:
    """(steps of all captions, C) of a token and its probability: what the V ``tokens`` are expected to be."""
    device = pick_device()
    loaded = [load_model(path) for path in paths]
    teachers = [(TorchEngine(model, device=str(device)), info.image) for model, info in loaded]
    candidate = np.dtype([("token", np.min_scalar_type(tokens)), ("probability", np.float16)])
    parts = []
    with tqdm(total=len(images), desc="teachers", unit="image") as progress:
        for start in range(0, len(images), IMAGES):
            rows = pad_captions(captions[start : start + IMAGES]).flatten(0, 1)
            inputs, targets = rows[:, :-1], rows[:, 1:]
            mean = torch.zeros(*inputs.shape, tokens, device=device)
            for engine, config in teachers:
                pixels = np.stack([load_pixels(image, config) for image in images[start : start + IMAGES]])
                grid = engine.encode(pixels)
                with autocast(device):
                    logits, _ = engine.model(grid, inputs.to(device))
                mean += logits.float().softmax(dim=-1) / len(teachers)
            found = mean[targets.to(device) != Vocabulary.pad].topk(min(CANDIDATES, tokens))
            part = np.empty(found.values.shape, dtype=candidate)
            part["token"] = found.indices.cpu()
            part["probability"] = (found.values / found.values.sum(dim=-1, keepdim=True)).cpu()
            parts.append(part)
            progress.update(len(pixels))
    return np.concatenate(parts)


def _fingerprint(paths: Sequence[Path], images: Sequence[Path], captions: Sequence[Sequence[Sequence[int]]]) -> str:
    digest = hashlib.sha256(str(CANDIDATES).encode())
    for path in paths:
        info = read_info(path)
        digest.update(json.dumps([info.model.to_dict(), info.image.to_dict()]).encode())
        digest.update((path / WEIGHTS_NAME).read_bytes())
    for image, own in zip(images, captions, strict=True):
        status = image.stat()
        digest.update(f"{image.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{own}\n".encode())
    return digest.hexdigest()[:20]
