"""What may not be said: plain callables that lower log-probabilities before a search reads them.

Shapes: N rows, V vocabulary, t tokens so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from captioner.decoding.options import DecodingOptions
from captioner.engines import FloatArray, IntArray
from captioner.tokens import Vocabulary

Filter = Callable[[FloatArray, IntArray], FloatArray]
"""(N, V) log-probabilities, (N, t) tokens so far → (N, V) log-probabilities."""

NEVER = (Vocabulary.pad, Vocabulary.bos, Vocabulary.unk)  # are no tokens of any caption


def make_filters(options: DecodingOptions) -> list[Filter]:
    """The filters that ``options`` ask for. What is never a caption's token is always forbidden."""
    filters = [forbid(NEVER)]
    if options.no_repeat_ngram:
        filters.append(no_repeat_ngram(options.no_repeat_ngram))
    return filters


def forbid(tokens: Sequence[int]) -> Filter:
    """Never emit ``tokens``."""
    columns = list(tokens)

    def apply(log_probs: FloatArray, _prefixes: IntArray) -> FloatArray:
        log_probs = log_probs.copy()  # the engine may own the array
        log_probs[:, columns] = -np.inf
        return log_probs

    return apply


def no_repeat_ngram(size: int) -> Filter:
    """Never complete an n-gram of ``size`` that the row already holds. The end symbol stays possible."""

    def apply(log_probs: FloatArray, prefixes: IntArray) -> FloatArray:
        length = prefixes.shape[1]
        if length < size:
            return log_probs
        ngrams = np.lib.stride_tricks.sliding_window_view(prefixes, size, axis=1)  # (N, t - size + 1, size)
        context = prefixes[:, length - size + 1 :]  # (N, size - 1)
        seen = (ngrams[:, :, :-1] == context[:, None]).all(axis=2)  # (N, t - size + 1)
        row, position = seen.nonzero()
        log_probs = log_probs.copy()
        log_probs[row, ngrams[row, position, -1]] = -np.inf
        return log_probs

    return apply
