"""Beam search, over all images of a batch at once; a beam of one is greedy search."""

from __future__ import annotations

import numpy as np

from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import Search, Step
from captioner.engines import FloatArray, IntArray
from captioner.tokens import Vocabulary

BLOCK = 32  # values
WORTH = 4  # times as many blocks as values asked for: with fewer it is quicker to look at all values


class BeamSearch(Search):
    """Keeps the K likeliest partial sequences of each image.

    Those that end are set aside, and the image is done when K have ended. When the maximum length comes first,
    unfinished sequences fill the places that are left.

    Where ``cider`` ranks, less likely ends are set aside too, those among a step's 2K likeliest candidates: what judges
    by more than likelihood is to have a choice. They do not count towards the K that end the search, and a beam of one
    stays greedy.
    """

    def __init__(self, images: int, options: DecodingOptions) -> None:
        super().__init__(images, options.beam_size, options)
        self.totals[:, 1:] = -np.inf  # all rows of an image begin alike: let the first alone be continued
        self._counted: IntArray = np.zeros(images, dtype=np.int64)  # of each image, the ends that count

    def advance(self, log_probs: FloatArray, weights: FloatArray) -> IntArray:
        """Continue each image's K likeliest candidates; see :meth:`Search.advance`."""
        images = np.arange(len(self.active))[:, None]
        # Of 2K candidates at most K end the sequence, so K that go on are among them; and none of these 2K is beyond
        # the 2K likeliest of its row.
        tokens = largest(log_probs, min(2 * self.width, log_probs.shape[1]))  # (N, m)
        gains = log_probs[np.arange(len(tokens))[:, None], tokens]
        totals = (self.totals.reshape(-1, 1) + gains).reshape(len(images), -1)  # (A, K·m)
        best = largest(totals, 2 * self.width)  # (A, 2K)
        values, tokens = totals[images, best], tokens.reshape(totals.shape)[images, best]
        parents = best // gains.shape[1] + images * self.width  # rows of the whole batch
        ends = tokens == Vocabulary.eos

        if ends.any():
            ended = ends & np.isfinite(values)
            counted = ended & (np.arange(best.shape[1]) < self.width)  # only an end among the K likeliest counts
            self._counted[self.active] += counted.sum(axis=1)
            kept = ended if self.options.rank == "cider" and self.width > 1 else counted
            self.finish(kept, values, self.length - 1, parents, ended=True)
        full = self._counted[self.active] >= self.width

        order = ends.argsort(axis=1, kind="stable")[:, : self.width]  # what goes on first, still best first
        values = np.where(ends, -np.inf, values)[images, order]
        rows, chosen = parents[images, order].reshape(-1), tokens[images, order].reshape(-1)
        step = Step(rows, chosen, log_probs[rows, chosen], weights)
        return self.proceed(step, values, unfinished=np.isfinite(values) & ~full[:, None])


def largest(values: FloatArray, count: int) -> IntArray:
    """Where the ``count`` largest values of each row stand, in descending order.

    The maxima of blocks tell which blocks hold them: no block whose maximum is smaller than that of ``count`` others.
    """
    rows, length = np.arange(len(values))[:, None], values.shape[1]
    blocks = length // BLOCK
    if blocks > WORTH * count:
        # A block takes every so manieth value, so that what is compared at a time lies side by side.
        even = blocks * BLOCK
        maxima = values[:, :even].reshape(len(values), BLOCK, blocks).max(axis=1)
        chosen = np.argpartition(maxima, blocks - count, axis=1)[:, blocks - count :]
        inside = (chosen[:, None, :] + np.arange(0, even, blocks)[:, None]).reshape(len(values), -1)
        rest = np.broadcast_to(np.arange(even, length), (len(values), length - even))
        places = np.concatenate((inside, rest), axis=1)
        return places[rows, largest(values[rows, places], count)]
    found = np.argpartition(values, length - count, axis=1)[:, length - count :]
    return found[rows, values[rows, found].argsort(axis=1)[:, ::-1]]
