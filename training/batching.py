"""From captions to batches: which captions stand together, and their padded token matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captioner.tokens import Vocabulary

POOL = 20  # batches whose captions are sorted by length together: enough to save padding, little enough to stay random


@dataclass(frozen=True)
class Batch:
    """B images with K captions each.

    Attributes:
        images: (B,) numbers of the images.
        tokens: (B·K, 1 + T) bos, tokens, eos, padding; image-major. A place without a caption is all padding.
    """

    images: np.ndarray
    tokens: Tensor


def encode_captions(
    captions: Sequence[Sequence[Sequence[str]]], vocabulary: Vocabulary, max_tokens: int
) -> list[list[list[int]]]:
    """Number the tokens of each image's captions and add bos and eos; what is cut at ``max_tokens`` gets no eos."""

    def encode(tokens: Sequence[str]) -> list[int]:
        end = [vocabulary.eos] if len(tokens) <= max_tokens else []
        return [vocabulary.bos, *vocabulary.encode(tokens[:max_tokens]), *end]

    return [[encode(tokens) for tokens in image] for image in captions]


def make_batches(
    captions: Sequence[Sequence[Sequence[int]]],
    *,
    images_per_batch: int,
    captions_per_image: int,
    random: np.random.Generator,
) -> list[Batch]:
    """One epoch: every caption once, in random order, captions of like length together.

    Args:
        captions: encoded captions of each image.
        images_per_batch: B; an image occurs once for each ``captions_per_image`` of its captions.
        captions_per_image: K; the last group of an image is filled up with padding.
        random: decides the order.
    """
    groups: list[tuple[int, list[Sequence[int]]]] = []
    for image, own in enumerate(captions):
        order = random.permutation(len(own))
        for start in range(0, len(own), captions_per_image):
            groups.append((image, [own[index] for index in order[start : start + captions_per_image]]))
    groups = [groups[index] for index in random.permutation(len(groups))]
    pool = POOL * images_per_batch
    batches = []
    for start in range(0, len(groups), pool):
        alike = sorted(groups[start : start + pool], key=lambda group: max(map(len, group[1])))
        batches += [alike[at : at + images_per_batch] for at in range(0, len(alike), images_per_batch)]
    return [_collate(batches[index], captions_per_image) for index in random.permutation(len(batches))]


def _collate(groups: Sequence[tuple[int, list[Sequence[int]]]], captions_per_image: int) -> Batch:
    length = max(len(caption) for _, own in groups for caption in own)
    tokens = torch.full((len(groups), captions_per_image, length), Vocabulary.pad)
    for row, (_, own) in enumerate(groups):
        for column, caption in enumerate(own):
            tokens[row, column, : len(caption)] = torch.tensor(caption)
    return Batch(np.array([image for image, _ in groups]), tokens.flatten(0, 1))
