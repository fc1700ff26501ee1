"""Minimum Bayes risk decoding: of several sequences, the one that agrees most with all of them.

The likeliest sequence may be one that few others resemble. Where a model wavers between ways of saying a thing, what
most of them have in common is the safer choice: the sequence with the highest expected similarity to the truth, if each
of those found is as likely as any other to be the truth (Kumar and Byrne 2004, "Minimum Bayes-Risk Decoding for
Statistical Machine Translation"). For captions, Devlin et al. (2015), "Exploring Nearest Neighbor Approaches for Image
Captioning", call it the consensus.

The similarity is that of CIDEr-D (Vedantam, Zitnick and Parikh 2015) with all n-grams of equal weight, as there are no
document frequencies to weigh them by: the cosine of clipped n-gram counts, mean over the orders, times a Gaussian
penalty on the difference in length. It compares token numbers, so that words and phones are alike to it.

Shapes: H sequences, L tokens in all of them, G different n-grams of an order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from captioner.decoding.tfidf import ORDERS
from captioner.engines import FloatArray, IntArray

SIGMA = 6.0  # width of the length penalty, in tokens
DECIMALS = 9  # by which agreements may differ; less than that is rounding, and would order what agrees equally


def by_consensus(sequences: Sequence[Sequence[int]]) -> IntArray:
    """(H,) the numbers of the sequences, from the one that agrees most with all of them to the one that does least.

    What agrees equally keeps its order.
    """
    agreement = similarities(sequences).sum(axis=1)
    return np.asarray((-agreement.round(DECIMALS)).argsort(kind="stable"))


def similarities(sequences: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """(H, H) how much the sequence of a row resembles that of a column, in [0, 1].

    One of ``ORDERS`` tokens or more resembles itself fully; a shorter one less, as it has no n-grams of some orders; an
    empty one not at all.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    cosines = np.zeros((len(lengths), len(lengths)))
    for counts in _count_ngrams(sequences, lengths):
        products = _clipped_products(counts)
        squares = products.diagonal().astype(np.float64)  # by itself nothing is clipped
        norms = np.sqrt(np.outer(squares, squares))
        cosines += np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0)
    penalty = np.exp(-(np.subtract.outer(lengths, lengths) ** 2) / (2 * SIGMA**2))
    return np.asarray(penalty * cosines / ORDERS)


def _count_ngrams(sequences: Sequence[Sequence[int]], lengths: IntArray) -> Iterator[FloatArray]:
    """For each order in turn, (H, G) how often a sequence has an n-gram."""
    tokens = np.fromiter(chain.from_iterable(sequences), dtype=np.int64, count=lengths.sum())  # (L,)
    rows = np.arange(len(lengths)).repeat(lengths)  # (L,) whose token it is
    left = lengths.cumsum()[rows] - np.arange(len(tokens))  # (L,) tokens from this one to its sequence's end
    starts, ngrams = np.arange(len(tokens)), np.zeros_like(tokens)
    base = tokens.max(initial=0) + 1
    for shorter in range(ORDERS):
        fits = left[starts] > shorter
        starts, ngrams = starts[fits], ngrams[fits]
        # An n-gram is one that is a token shorter, known by its number below L, and one more token.
        different, ngrams = np.unique(ngrams * base + tokens[starts + shorter], return_inverse=True)
        counts = np.bincount(rows[starts] * len(different) + ngrams, minlength=len(lengths) * len(different))
        yield counts.reshape(len(lengths), len(different)).astype(np.float32)


def _clipped_products(counts: FloatArray) -> FloatArray:
    """(H, H) the sum over the n-grams of the smaller of two counts times the column's own.

    These are whole numbers, and single precision holds them exactly for sequences of up to 4096 tokens.
    """
    products = np.zeros((len(counts), len(counts)), dtype=np.float32)
    # The smaller of two counts is the number of levels 1, 2, ... that both reach: one matrix product a level.
    for level in range(1, int(counts.max(initial=0)) + 1):
        counts = counts[:, (counts >= level).any(axis=0)]
        reached = (counts >= level).astype(np.float32)
        products += reached @ (reached * counts).T
    return products
