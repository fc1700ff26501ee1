"""CIDEr-D with the references prepared once: fast enough for early stopping and as a reward.

The measure is that of Vedantam, Zitnick and Parikh (2015), "CIDEr: Consensus-based Image Description Evaluation", in
the variant D of the coco-caption standard, with document frequencies from the given references.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from captioner.decoding.tfidf import ORDERS, Ngram, TfIdf, Vector, count_ngrams
from captioner.errors import DataError

SIGMA = 6.0  # width of the length penalty, in tokens


class CiderScorer:
    """Scores tokenised captions against fixed references.

    Args:
        references: per image, its reference captions as token sequences.

    Raises:
        DataError: there are no references, or an image has none.
    """

    def __init__(self, references: Sequence[Sequence[Sequence[str]]]) -> None:
        if not references or not all(references):
            raise DataError("CIDEr needs at least one image, and at least one reference for each")
        self.tfidf = fit_tfidf(references)
        self._references = [[self.tfidf(caption) for caption in image] for image in references]

    def __call__(self, hypotheses: Sequence[Sequence[str]]) -> float:
        """Mean score of one hypothesis per image, in the order of the references.

        Raises:
            DataError: there are not as many hypotheses as images.
        """
        if len(hypotheses) != len(self._references):
            raise DataError(f"{len(hypotheses)} hypotheses cannot be scored for {len(self._references)} images")
        return sum(self.score_image(image, tokens) for image, tokens in enumerate(hypotheses)) / len(hypotheses)

    def score_image(self, image: int, tokens: Sequence[str]) -> float:
        """Score in [0, 10] of one caption for the image of that number: the reward of self-critical training."""
        hypothesis = self.tfidf(tokens)
        references = self._references[image]
        return 10 * sum(_similarity(hypothesis, reference) for reference in references) / len(references)


def fit_tfidf(references: Sequence[Sequence[Sequence[str]]]) -> TfIdf:
    """Inverse document frequencies from the captions of images.

    An n-gram that no reference holds weighs as much as one that a single image holds.
    """
    unseen = math.log(len(references))
    frequencies = document_frequencies(references)
    return TfIdf({ngram: unseen - math.log(frequency) for ngram, frequency in frequencies.items()}, unseen)


def document_frequencies(references: Sequence[Sequence[Sequence[str]]]) -> Counter[Ngram]:
    """How many images' captions have an n-gram: those of an image together are one document."""
    documents = (set[Ngram]().union(*map(count_ngrams, image)) for image in references)
    return Counter(ngram for document in documents for ngram in document)


def _similarity(hypothesis: Vector, reference: Vector) -> float:
    """Mean over the orders of the clipped cosine, times a Gaussian penalty on the difference in length."""
    products = [0.0] * ORDERS
    for ngram, weight in hypothesis.weights.items():
        if (other := reference.weights.get(ngram)) is not None:
            products[len(ngram) - 1] += min(weight, other) * other
    norms = [ours * theirs for ours, theirs in zip(hypothesis.norms, reference.norms, strict=True)]
    cosines = sum(product / norm for product, norm in zip(products, norms, strict=True) if norm > 0)
    penalty = math.exp(-((hypothesis.length - reference.length) ** 2) / (2 * SIGMA**2))
    return penalty * cosines / ORDERS
