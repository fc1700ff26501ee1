"""From captions to batches: which captions stand together, and their padded token matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captioner.tokens import Vocabulary, make_tokenizer
from training import distributed
from training.datasets import Example
from training.predict import reference_tokens
from training.recipe import Recipe

POOL = 20  # batches whose captions are sorted by length together: enough to save padding, little enough to stay random


@dataclass(frozen=True)
class Corpus:
    """The training split as a recipe reads it.

    Attributes:
        images: the pictures' files.
        captions: the tokens of each picture's captions.
        vocabulary: of all these tokens, the rare ones apart.
        encoded: the captions in numbers, see :func:`encode_captions`.
    """

    images: list[Path]
    captions: list[list[Sequence[str]]]
    vocabulary: Vocabulary
    encoded: list[list[list[int]]]


@dataclass(frozen=True)
class Batch:
    """B images with K captions each.

    Attributes:
        images: (B,) numbers of the images.
        captions: (B·K,) which caption of its image each row is; -1 where there is none.
        tokens: (B·K, 1 + T) bos, tokens, eos, padding; image-major. A place without a caption is all padding.
    """

    images: np.ndarray
    captions: np.ndarray
    tokens: Tensor

    def share(self) -> Batch:
        """This process's images of the batch, with all their captions, padded as the whole is.

        Of a batch that has fewer images than there are processes, each takes the whole: none may be without any, and
        the mean over the processes is the same.
        """
        images = len(self.images)
        if images < distributed.processes():
            return self
        copies, own = len(self.tokens) // images, distributed.part_of(images)
        rows = slice(own.start * copies, own.stop * copies)
        return Batch(self.images[own], self.captions[rows], self.tokens[rows])


def make_corpus(examples: Sequence[Example], recipe: Recipe) -> Corpus:
    """What the recipe's ``tokenizer``, ``min_count`` and ``max_tokens`` make of the training split.

    Raises:
        DataError: see :func:`training.predict.reference_tokens`.
    """
    captions = reference_tokens(examples, make_tokenizer(recipe.tokenizer))
    vocabulary = Vocabulary.build((tokens for image in captions for tokens in image), min_count=recipe.min_count)
    encoded = encode_captions(captions, vocabulary, recipe.max_tokens)
    return Corpus([example.image for example in examples], captions, vocabulary, encoded)


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
    every_caption: bool = True,
) -> list[Batch]:
    """One epoch: every caption once, or every image once, in random order, captions of like length together.

    Args:
        captions: encoded captions of each image.
        images_per_batch: B; an image occurs once for each ``captions_per_image`` of its captions.
        captions_per_image: K; the last group of an image is filled up with padding.
        random: decides the order.
        every_caption: False takes each image once, with ``captions_per_image`` of its captions at random.
    """
    groups: list[tuple[int, list[int]]] = []  # an image and the numbers of some of its captions
    for image, own in enumerate(captions):
        order = random.permutation(len(own))
        for start in range(0, len(own) if every_caption else 1, captions_per_image):
            groups.append((image, order[start : start + captions_per_image].tolist()))
    groups = [groups[index] for index in random.permutation(len(groups))]
    pool = POOL * images_per_batch
    batches = []
    for start in range(0, len(groups), pool):
        alike = sorted(
            groups[start : start + pool], key=lambda group: max(len(captions[group[0]][at]) for at in group[1])
        )
        batches += [alike[at : at + images_per_batch] for at in range(0, len(alike), images_per_batch)]
    return [_collate(captions, batches[index], captions_per_image) for index in random.permutation(len(batches))]


def pad_captions(captions: Sequence[Sequence[Sequence[int]]], captions_per_image: int = 0) -> Tensor:
    """Encoded captions of B images → (B, K, 1 + T), padded; K is given, or as many as the image with most has."""
    most = captions_per_image or max(map(len, captions))
    length = max(len(caption) for own in captions for caption in own)
    tokens = torch.full((len(captions), most, length), Vocabulary.pad)
    for row, own in enumerate(captions):
        for column, caption in enumerate(own):
            tokens[row, column, : len(caption)] = torch.tensor(caption)
    return tokens


def _collate(
    captions: Sequence[Sequence[Sequence[int]]], groups: Sequence[tuple[int, list[int]]], captions_per_image: int
) -> Batch:
    chosen = [[captions[image][number] for number in own] for image, own in groups]
    numbers = np.full((len(groups), captions_per_image), -1)
    for row, (_, own) in enumerate(groups):
        numbers[row, : len(own)] = own
    tokens = pad_captions(chosen, captions_per_image).flatten(0, 1)
    return Batch(np.array([image for image, _ in groups]), numbers.reshape(-1), tokens)
