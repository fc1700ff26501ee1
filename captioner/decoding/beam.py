"""Beam search, over all images of a batch at once; a beam of one is greedy search."""

from __future__ import annotations

import numpy as np

from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import Search, Step
from captioner.engines import FloatArray, IntArray
from captioner.tokens import Vocabulary

BLOCK = 32  # values, or one more
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
        # All rows of an image begin alike, so that one tells what the first step says of them. But a runtime makes
        # itself ready for each new number of rows, which for a single image costs more than that saves.
        super().__init__(images, options.beam_size, options, first=1 if images > 1 else options.beam_size)
        self.totals[:, 1:] = -np.inf  # let the first alone be continued
        self._counted: IntArray = np.zeros(images, dtype=np.int64)  # of each image, the ends that count

    def advance(self, log_probs: FloatArray, weights: FloatArray) -> IntArray:
        """Continue each image's K likeliest candidates; see :meth:`Search.advance`."""
        images, vocabulary = np.arange(len(self.active))[:, None], log_probs.shape[1]
        # Of 2K candidates at most K end the sequence, so K that go on are among them.
        best, values = likeliest(log_probs, self.totals, 2 * self.width)  # (A, 2K)
        parents, tokens = np.divmod(best, vocabulary)
        parents += images * self.totals.shape[1]  # rows of the whole batch
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


def likeliest(log_probs: FloatArray, totals: FloatArray, count: int) -> tuple[IntArray, FloatArray]:
    """The ``count`` likeliest continuations of each image's sequences, in descending order.

    Args:
        log_probs: (N, V) of the next tokens.
        totals: (A, w) log-probabilities of the sequences so far, N = A·w.
        count: where w·V is smaller, impossible ones fill the places that are left.

    Returns:
        (A, count) their numbers in the w·V of their image, and their log-probabilities.
    """
    (images, width), (rows, vocabulary) = totals.shape, log_probs.shape
    each, blocks = np.arange(images)[:, None], vocabulary // BLOCK
    if blocks < BLOCK or width * blocks < WORTH * count:
        candidates = (log_probs + totals.reshape(-1, 1)).reshape(images, -1)
        lacking = max(0, count - candidates.shape[1])
        candidates = np.pad(candidates, ((0, 0), (0, lacking)), constant_values=-np.inf)
        found = largest(candidates, count, each)
        return found % (width * vocabulary), candidates[each, found]
    # The maxima of blocks tell which of them hold what is asked for: none whose maximum is smaller than those of
    # `count` others. A block takes every so manieth value, so that what is compared at a time lies side by side.
    even = blocks * BLOCK
    maxima = log_probs[:, :even].reshape(rows, BLOCK, blocks).max(axis=1)
    rest = vocabulary - even
    np.maximum(maxima[:, :rest], log_probs[:, even:], out=maxima[:, :rest])  # one more value of the first blocks
    maxima += totals.reshape(-1, 1)
    chosen = np.argpartition(maxima.reshape(images, -1), width * blocks - count, axis=1)[:, width * blocks - count :]
    row, block = np.divmod(chosen, blocks)  # (A, count)
    tokens = block[..., None] + np.arange(0, even + 1, blocks)  # (A, count, BLOCK + 1)
    beyond = tokens >= vocabulary
    tokens[beyond] = 0
    candidates = log_probs[(row + each * width)[..., None], tokens]
    candidates[beyond] = -np.inf
    candidates += totals[each, row][..., None]
    found = largest(candidates.reshape(images, -1), count, each)
    places = (tokens + (row * vocabulary)[..., None]).reshape(images, -1)
    return places[each, found], candidates.reshape(images, -1)[each, found]


def largest(values: FloatArray, count: int, rows: IntArray) -> IntArray:
    """Where the ``count`` largest values of each of the (A, 1) ``rows`` stand, in descending order."""
    length = values.shape[1]
    found = np.argpartition(values, length - count, axis=1)[:, length - count :]
    return found[rows, values[rows, found].argsort(axis=1)[:, ::-1]]
