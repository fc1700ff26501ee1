"""The CIDEr that captions of an image are expected to have, and so the best of them to say.

The likeliest caption is seldom the one that people agree with most. Minimum Bayes risk decoding takes that of the
highest expected score (Kumar and Byrne 2004), and for CIDEr the expectation is easily had: clipping and length aside, a
score is linear in the TF-IDF vectors of the references, so that the expected score is the score against the expected
vector. And what vector to expect of an image is a question to linear regression: one row of weights an n-gram, fitted
in closed form to the training captions by :mod:`training.expectation`.

Devlin et al. (2015), "Exploring Nearest Neighbor Approaches for Image Captioning", score by the captions of the nearest
training images instead, which asks for these to be kept.

Shapes: H sequences, G n-grams known, F features of an image's summary, see :meth:`captioner.engines.Engine.summary`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np

from captioner.decoding.tfidf import ORDERS, count_ngrams
from captioner.engines import Array, FloatArray, IntArray
from captioner.errors import ModelError
from captioner.tokens import Vocabulary

EXPECTATION_NAME = "expectation.safetensors"
SCALE = 10.0  # of CIDEr-D
SHARE = 3.0  # what a point of CIDEr is worth in a score; from 2 to 10 it makes little difference
PARTS = {"ngrams": "GN", "idf": "G", "weight": "GF", "bias": "G", "unseen": ""}  # by name: the axes that each has

# Of one image: (H,) scores, H sequences → (H,) their numbers, from the best to the worst.
Judge = Callable[[FloatArray, Sequence[Sequence[int]]], IntArray]


class Expectation:
    """What n-grams people are expected to use of an image.

    Args:
        ngrams: (G, 4) token numbers, filled up with padding.
        idf: (G,) their inverse document frequencies in the training captions.
        weight: (G, F) of the regression; any precision, which it is kept in.
        bias: (G,) of the regression.
        unseen: inverse document frequency of all other n-grams, of which nothing is expected.
    """

    def __init__(self, ngrams: Array, idf: FloatArray, weight: Array, bias: FloatArray, unseen: float) -> None:
        self.ngrams, self.idf, self.weight, self.bias, self.unseen = ngrams, idf, weight, bias, unseen
        known = [tuple(token for token in ngram if token != Vocabulary.pad) for ngram in ngrams.tolist()]
        self._numbers = {ngram: number for number, ngram in enumerate(known)}

    def fits(self, features: int, tokens: int) -> bool:
        """Whether it can be that of a model of so many values a position and so many tokens."""
        return bool(self.weight.shape[1] == features and self.ngrams.max() < tokens)

    def judge(self, summary: FloatArray) -> Judge:
        """What ranks sequences for the image of a (F,) summary: score and expected CIDEr; equals keep their order."""
        return lambda scores, said: (-scores - SHARE * self.expect(summary, said)).argsort(kind="stable")

    def expect(self, summary: FloatArray, sequences: Sequence[Sequence[int]]) -> FloatArray:
        """(F,) and H sequences → (H,) their expected CIDEr, from 0 to 10 more or less: a regression knows no bounds."""
        counts = [count_ngrams(sequence) for sequence in sequences]
        ngrams = [ngram for count in counts for ngram in count]  # M of them in all
        numbers = np.fromiter((self._numbers.get(ngram, -1) for ngram in ngrams), dtype=np.int64, count=len(ngrams))
        orders = np.fromiter(map(len, ngrams), dtype=np.int64, count=len(ngrams))
        rows = np.arange(len(counts)).repeat([len(count) for count in counts])  # (M,) whose n-gram it is
        times = np.fromiter(
            chain.from_iterable(count.values() for count in counts), dtype=np.float64, count=len(ngrams)
        )
        weights = times * np.where(numbers < 0, self.unseen, self.idf[numbers])
        # Each order of a sequence is a vector of length one.
        vectors = rows * (ORDERS + 1) + orders
        norms = np.sqrt(np.bincount(vectors, weights=weights**2))
        told = (numbers >= 0) & (weights > 0)
        shares = weights[told] / norms[vectors[told]]
        # Of thousands of n-grams some hundred are asked for: their weights alone are read.
        asked, places = np.unique(numbers[told], return_inverse=True)
        expected = self.weight[asked].astype(np.float32) @ summary + self.bias[asked]
        points = SCALE / ORDERS * shares * expected[places]
        return np.bincount(rows[told], weights=points, minlength=len(counts)).astype(np.float32)

    def save(self, directory: Path) -> None:
        """Write it into a model's directory."""
        from safetensors.numpy import save

        parts = {name: np.ascontiguousarray(getattr(self, name)) for name in ("ngrams", "idf", "weight", "bias")}
        parts["unseen"] = np.array(self.unseen, dtype=np.float32)
        partial = directory / f"{EXPECTATION_NAME}.partial"
        partial.write_bytes(save(parts))
        partial.replace(directory / EXPECTATION_NAME)

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """That of a model; None if its directory has none.

        Raises:
            ModelError: the file is broken.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = directory / EXPECTATION_NAME
        if not path.exists():
            return None
        try:
            parts = load_file(path)
        except (OSError, SafetensorError, TypeError, AttributeError) as error:  # the last two: of a type numpy lacks
            raise ModelError(f"cannot read {path}: {error}") from error
        if not _whole(parts):
            raise ModelError(f"{path} is no expectation of n-grams: fit it again", code="model_mismatch")
        return cls(parts["ngrams"], parts["idf"], parts["weight"], parts["bias"], float(parts["unseen"]))


def _whole(parts: Mapping[str, Array]) -> bool:
    """Whether a file's parts are those of an expectation, and numbers."""
    if {name: part.ndim for name, part in parts.items()} != {name: len(axes) for name, axes in PARTS.items()}:
        return False
    lengths = {(axis, size) for name, axes in PARTS.items() for axis, size in zip(axes, parts[name].shape, strict=True)}
    kinds = {name: part.dtype.kind for name, part in parts.items()}
    return (
        len(lengths) == len({axis for axis, _ in lengths})
        and ("N", ORDERS) in lengths
        and ("G", 0) not in lengths
        and kinds == dict.fromkeys(PARTS, "f") | {"ngrams": "i"}
        and all(bool(np.isfinite(part).all()) for part in parts.values())
    )
