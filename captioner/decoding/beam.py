"""Beam search, over all images of a batch at once; a beam of one is greedy search."""

from __future__ import annotations

import numpy as np

from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import Search, Step
from captioner.engines import FloatArray, IntArray
from captioner.engines.candidates import Candidates
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
        # All rows of an image begin alike, so that one tells what the first step says of them. But a runtime makes
        # itself ready for each new number of rows, which for a single image costs more than that saves.
        super().__init__(images, options.beam_size, options, first=1 if images > 1 else options.beam_size)
        self.wanted = 2 * options.beam_size
        self.totals[:, 1:] = -np.inf  # let the first alone be continued
        self._counted: IntArray = np.zeros(images, dtype=np.int64)  # of each image, the ends that count

    def advance(self, candidates: Candidates, weights: FloatArray) -> IntArray:
        """Continue each image's K likeliest candidates; see :meth:`Search.advance`."""
        log_probs, tokens = candidates.at_least(-(-2 * self.width // self.totals.shape[1]))
        assert tokens is not None
        # Of 2K candidates at most K end the sequence, so K that go on are among them.
        best, values = likeliest(log_probs, self.totals, 2 * self.width)  # (A, 2K)
        said = tokens.take(best)
        ends = said == Vocabulary.eos
        if ends.any():
            parents = best // tokens.shape[1]
            ended = ends & np.isfinite(values)
            counted = ended & (np.arange(best.shape[1]) < self.width)  # only an end among the K likeliest counts
            self._counted[self.active] += counted.sum(axis=1)
            kept = ended if self.options.rank == "cider" and self.width > 1 else counted
            self.finish(kept, values, self.length - 1, parents, ended=True)
            order = ends.argsort(axis=1, kind="stable")  # what goes on first, still best first
            values = np.take_along_axis(np.where(ends, -np.inf, values), order, axis=1)
            best = np.take_along_axis(best, order, axis=1)
        full = self._counted[self.active] >= self.width
        values, chosen = values[:, : self.width], best[:, : self.width].reshape(-1)
        step = Step(chosen // tokens.shape[1], tokens.take(chosen), log_probs.take(chosen), weights)
        return self.proceed(step, values, unfinished=np.isfinite(values) & ~full[:, None])


def likeliest(log_probs: FloatArray, totals: FloatArray, count: int) -> tuple[IntArray, FloatArray]:
    """The ``count`` likeliest continuations of each image's sequences, in descending order.

    Args:
        log_probs: (N, M) of the next tokens.
        totals: (A, w) log-probabilities of the sequences so far, N = A·w.
        count: at most w·M.

    Returns:
        (A, count) their numbers among all N·M, and the log-probabilities of the sequences that they make.
    """
    values = (log_probs + totals.reshape(-1, 1)).reshape(len(totals), -1)
    best = (-values).argsort(axis=1)[:, :count]
    best += np.arange(0, values.size, values.shape[1])[:, None]
    return best, values.take(best)
