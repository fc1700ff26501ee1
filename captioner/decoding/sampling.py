"""Random sampling with temperature, top-k and nucleus truncation."""

from __future__ import annotations

import numpy as np

from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import Search, Step
from captioner.engines import FloatArray, IntArray
from captioner.engines.candidates import Candidates
from captioner.tokens import Vocabulary

SMALLEST = np.float32(2**-25)


class Sampler(Search):
    """Draws ``n_best`` independent sequences an image and ranks them, by score unless told otherwise.

    Log-probabilities are the model's own: temperature and truncation change what is drawn, not what it is worth.
    """

    def __init__(self, images: int, options: DecodingOptions) -> None:
        super().__init__(images, options.n_best, options, first=options.n_best)
        self._random = np.random.default_rng(options.seed)
        self._ended = np.zeros((images, options.n_best), dtype=np.bool_)

    def advance(self, candidates: Candidates, weights: FloatArray) -> IntArray:
        """Draw one token a row of all; see :meth:`Search.advance`."""
        options, log_probs = self.options, candidates.log_probs
        tokens = self._draw(truncate(log_probs / np.float32(options.temperature), options.top_k, options.top_p))
        rows = np.arange(tokens.size)
        drawn = log_probs[rows, tokens]
        grid = (len(self.active), self.width)
        # A row that has ended waits, unread, for the other rows of its image.
        totals = np.where(self._ended, self.totals, self.totals + drawn.reshape(grid)).astype(np.float32)
        ends = (tokens == Vocabulary.eos).reshape(grid) & ~self._ended
        self.finish(ends, totals, self.length - 1, rows.reshape(grid), ended=True)
        ended = self._ended | ends
        self._ended = ended[~ended.all(axis=1)]
        return self.proceed(Step(rows, tokens, drawn, weights), totals, unfinished=~ended)

    def _draw(self, logits: FloatArray) -> IntArray:
        """One token a row, by the Gumbel-max trick: the argmax of logits plus Gumbel noise follows their softmax."""
        # Gumbel noise is minus the logarithm of an exponential draw, which is quicker to have. In single precision the
        # draw can be 0; it then stands for all below half its resolution.
        noise = np.maximum(self._random.standard_exponential(size=logits.shape, dtype=np.float32), SMALLEST)
        return np.asarray((logits - np.log(noise)).argmax(axis=1))


def truncate(logits: FloatArray, top_k: int, top_p: float) -> FloatArray:
    """Forbid all but the ``top_k`` likeliest tokens (0: no limit), then all but the nucleus of mass ``top_p``."""
    if not top_k and top_p >= 1:
        return logits
    order = (-logits).argsort(axis=1, kind="stable")
    ranked = np.take_along_axis(logits, order, axis=1)
    keep = np.ones(ranked.shape, dtype=np.bool_)
    if top_k:
        keep[:, top_k:] = False
    if top_p < 1:
        ranked = np.where(keep, ranked, -np.inf)
        probabilities = np.exp(ranked - ranked[:, :1])
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        # A token belongs to the nucleus while the mass before it is still short of top_p; the first always does.
        keep &= probabilities.cumsum(axis=1) - probabilities < top_p
    kept = np.empty_like(keep)
    np.put_along_axis(kept, order, keep, axis=1)
    return np.where(kept, logits, -np.inf).astype(np.float32)
