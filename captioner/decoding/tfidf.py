"""Sentences as vectors of n-grams, as CIDEr compares them (Vedantam, Zitnick and Parikh 2015, section 3)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

Ngram = tuple[Hashable, ...]
ORDERS = 4


class Vector(NamedTuple):
    """A sentence as TF-IDF weights: ``norms`` holds one Euclidean norm per n-gram order."""

    weights: dict[Ngram, float]
    norms: list[float]
    length: int

    def unit(self) -> dict[Ngram, float]:
        """The weights of each order as a vector of length one."""
        return {ngram: weight / self.norms[len(ngram) - 1] for ngram, weight in self.weights.items() if weight}


class TfIdf:
    """Weighs the n-grams of a sentence, up to four tokens long, by how often it has them and how rare they are.

    Args:
        idf: of an n-gram, the logarithm of images over images whose captions have it.
        unseen: that of an n-gram which ``idf`` does not know.
    """

    def __init__(self, idf: Mapping[Ngram, float], unseen: float) -> None:
        self.idf = idf
        self.unseen = unseen

    def __call__(self, tokens: Sequence[Hashable]) -> Vector:
        """The vector of a sentence."""
        counts = count_ngrams(tokens)
        weights = {ngram: count * self.idf.get(ngram, self.unseen) for ngram, count in counts.items()}
        squares = [0.0] * ORDERS
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight**2
        return Vector(weights, [math.sqrt(square) for square in squares], len(tokens))


def count_ngrams(tokens: Sequence[Hashable]) -> Counter[Ngram]:
    """How often each n-gram of up to four tokens occurs."""
    shifted = [tokens[start:] for start in range(ORDERS)]
    return Counter(chain.from_iterable(zip(*shifted[:order], strict=False) for order in range(1, ORDERS + 1)))
