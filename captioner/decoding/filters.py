"""What may not be said: plain callables that lower log-probabilities before a search reads them.

Shapes: N rows, V vocabulary, t tokens so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from captioner.decoding.options import DecodingOptions
from captioner.engines import FloatArray, IntArray
from captioner.tokens import Vocabulary

Filter = Callable[[FloatArray, IntArray], None]
"""(N, V) log-probabilities, which it changes in place, and (N, t) tokens so far."""

NEVER = (Vocabulary.pad, Vocabulary.bos, Vocabulary.unk)  # are no tokens of any caption


def make_filters(options: DecodingOptions) -> list[Filter]:
    """The filters that ``options`` ask for. What is never a caption's token is always forbidden."""
    filters = [forbid(NEVER)]
    if options.no_repeat_ngram:
        filters.append(no_repeat_ngram(options.no_repeat_ngram))
    return filters


def forbid(tokens: Sequence[int]) -> Filter:
    """Never emit ``tokens``."""

    def apply(log_probs: FloatArray, _prefixes: IntArray) -> None:
        for token in tokens:  # quicker than all at once, while they are few
            log_probs[:, token] = -np.inf

    return apply


def no_repeat_ngram(size: int) -> Filter:
    """Never complete an n-gram of ``size`` that the row already holds. The end symbol stays possible."""

    def apply(log_probs: FloatArray, prefixes: IntArray) -> None:
        rows, length = prefixes.shape
        if length < size:
            return
        starts = length - size + 1  # of an n-gram so far; of one that this step would complete, the next
        seen = np.ones((rows, starts), dtype=np.bool_)
        for offset in range(size - 1):
            seen &= prefixes[:, offset : offset + starts] == prefixes[:, starts + offset, None]
        if seen.any():
            row, start = seen.nonzero()
            log_probs[row, prefixes[row, start + size - 1]] = -np.inf

    return apply
