"""Beam search, over all images of a batch at once; a beam of one is greedy search."""

from __future__ import annotations

import numpy as np

from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import Search, Step
from captioner.engines import FloatArray, IntArray
from captioner.tokens import Vocabulary


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
        images, vocabulary = len(self.active), log_probs.shape[1]
        totals = (self.totals.reshape(-1, 1) + log_probs).reshape(images, -1)  # (A, K·V)
        # Of 2K candidates at most K end the sequence, so K that go on are among them.
        best = largest(totals, 2 * self.width)  # (A, 2K)
        values = np.take_along_axis(totals, best, axis=1)
        beams, tokens = np.divmod(best, vocabulary)
        parents = beams + np.arange(images)[:, None] * self.width  # rows of the whole batch
        ends = tokens == Vocabulary.eos

        ended = ends & np.isfinite(values)
        counted = ended & (np.arange(best.shape[1]) < self.width)  # only an end among the K likeliest counts
        self._counted[self.active] += counted.sum(axis=1)
        full = self._counted[self.active] >= self.width
        kept = ended if self.options.rank == "cider" and self.width > 1 else counted
        self.finish(kept, values, self.length - 1, parents, ended=True)

        order = ends.argsort(axis=1, kind="stable")[:, : self.width]  # what goes on first, still best first
        values, parents, tokens, ends = (
            np.take_along_axis(array, order, axis=1) for array in (values, parents, tokens, ends)
        )
        values = np.where(ends, -np.inf, values).astype(np.float32)
        rows, chosen = parents.reshape(-1), tokens.reshape(-1)
        step = Step(rows, chosen, log_probs[rows, chosen], weights)
        return self.proceed(step, values, unfinished=np.isfinite(values) & ~full[:, None])


def largest(values: FloatArray, count: int) -> IntArray:
    """Where the ``count`` largest values of each row stand, in descending order."""
    found = np.argpartition(values, -count, axis=1)[:, -count:]
    order = np.take_along_axis(values, found, axis=1).argsort(axis=1)[:, ::-1]
    return np.take_along_axis(found, order, axis=1)
