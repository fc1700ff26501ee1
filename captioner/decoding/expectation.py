"""The CIDEr that captions of an image are expected to have, and so the best of them to say.

The likeliest caption is seldom the one that people agree with most. Minimum Bayes risk decoding takes that of the
highest expected score (Kumar and Byrne 2004), and for CIDEr the expectation is easily had: clipping and length aside, a
score is linear in the TF-IDF vectors of the references, so that the expected score is the score against the expected
vector. And what vector to expect of an image is a question to linear regression: one row of weights an n-gram, fitted
in closed form to the training captions by :mod:`training.expectation`.

Devlin et al. (2015), "Exploring Nearest Neighbor Approaches for Image Captioning", score by the captions of the nearest
training images instead, which asks for these to be kept.

Shapes: H sequences, T tokens, G n-grams known, U different ones said, F features of an image's summary, see
:meth:`captioner.engines.Engine.summary`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from captioner.decoding.tfidf import ORDERS
from captioner.engines import Array, FloatArray, IntArray
from captioner.errors import ModelError
from captioner.tokens import Vocabulary

EXPECTATION_NAME = "expectation.safetensors"
SCALE = 10.0  # of CIDEr-D
SHARE = 3.0  # what a point of CIDEr is worth in a score; from 2 to 10 it makes little difference
PARTS = {"ngrams": "GN", "idf": "G", "weight": "GF", "bias": "G", "unseen": ""}  # by name: the axes that each has

# An n-gram is known by one number, 16 bits a token, padding as 0.
Codes = npt.NDArray[np.uint64]
MOST_TOKENS = 2**16
PLACES = np.arange(0, 16 * ORDERS, 16, dtype=np.uint64)
FIRST_OF_ORDER = np.uint64(1) << PLACES[1:]

# Of one image: (H,) scores, H sequences → (H,) their numbers, from the best to the worst.
Judge = Callable[[FloatArray, Sequence[Sequence[int]]], IntArray]


class Expectation:
    """What n-grams people are expected to use of an image.

    Args:
        ngrams: (G, 4) token numbers, filled up with padding.
        idf: (G,) their inverse document frequencies in the training captions.
        weight: (G, F) of the regression; it is saved in the precision that is given, and loaded in single precision.
        bias: (G,) of the regression.
        unseen: inverse document frequency of all other n-grams, of which nothing is expected.
    """

    def __init__(self, ngrams: Array, idf: FloatArray, weight: Array, bias: FloatArray, unseen: float) -> None:
        self.ngrams, self.idf, self.weight, self.bias, self.unseen = ngrams, idf, weight, bias, unseen
        codes = _prefix_codes(ngrams)[:, -1]
        self._sorted = codes.argsort()
        self._codes = codes[self._sorted]

    def fits(self, features: int, tokens: int) -> bool:
        """Whether it can be that of a model of so many values a position and so many tokens."""
        return bool(self.weight.shape[1] == features and self.ngrams.max() < tokens <= MOST_TOKENS)

    def judge(self, summary: FloatArray) -> Judge:
        """What ranks sequences for the image of a (F,) summary: score and expected CIDEr; equals keep their order."""
        return lambda scores, said: (-scores - SHARE * self.expect(summary, said)).argsort(kind="stable")

    def expect(self, summary: FloatArray, sequences: Sequence[Sequence[int]]) -> FloatArray:
        """(F,) and H sequences → (H,) their expected CIDEr, from 0 to 10 more or less: a regression knows no bounds."""
        lengths = list(map(len, sequences))
        said = np.zeros((len(sequences), max(lengths, default=0) + ORDERS - 1), dtype=np.int64)
        for row, sequence in zip(said, sequences, strict=True):
            row[: len(sequence)] = sequence
        width = said.shape[1] - ORDERS + 1
        windows = np.stack([said[:, start : start + width] for start in range(ORDERS)], axis=2)  # (H, T, 4)
        there = windows != Vocabulary.pad
        ngrams, places = np.unique(_prefix_codes(windows)[there], return_inverse=True)  # (U,) of all sequences
        orders = (ngrams[:, None] >= FIRST_OF_ORDER).sum(axis=1)  # (U,) from 0
        rows = there.nonzero()[0]
        count = len(ngrams)
        times = np.bincount(rows * count + places, minlength=len(sequences) * count).reshape(len(sequences), count)

        nearest = np.minimum(self._codes.searchsorted(ngrams), len(self._codes) - 1)
        known, found = self._codes[nearest] == ngrams, self._sorted[nearest]
        weights = times * np.where(known, self.idf[found], self.unseen)
        # Each order of a sequence is a vector of length one.
        squares = weights**2 @ (orders[:, None] == np.arange(ORDERS))  # (H, 4)
        norms = np.sqrt(squares)[:, orders]
        shares = np.divide(weights, norms, out=np.zeros_like(weights), where=norms > 0)
        # Of thousands of n-grams some hundred are asked for: their weights alone are read.
        asked = found[known]
        expected = self.weight[asked] @ summary + self.bias[asked]
        told: FloatArray = (SCALE / ORDERS * (shares[:, known] @ expected)).astype(np.float32)
        return told

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
        weight = parts["weight"].astype(np.float32)  # numpy takes its time to widen numbers: not at every picture
        return cls(parts["ngrams"], parts["idf"], weight, parts["bias"], float(parts["unseen"]))


def _prefix_codes(ngrams: Array) -> Codes:
    """(…, 4) tokens → (…, 4) numbers: what the first of them, the first two and so on are known by."""
    codes: Codes = (ngrams.astype(np.uint64) << PLACES).cumsum(axis=-1, dtype=np.uint64)
    return codes


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
