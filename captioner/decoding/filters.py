"""What may not be said.

Shapes: N rows, t tokens so far, F forbidden ones, repeats among them where a row has fewer than another.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from captioner.engines import BoolArray, IntArray
from captioner.tokens import Vocabulary

Filter = Callable[[IntArray], IntArray]
"""(N, t) tokens so far → (N, F) tokens that each row may not go on with. Asked before the decoder is."""

NEVER = (Vocabulary.pad, Vocabulary.bos, Vocabulary.unk)  # are no tokens of any caption
# By token, whether it is one of them; the last element stands for all the words.
IS_NEVER: BoolArray = np.isin(np.arange(max(NEVER) + 2), NEVER)


def no_repeat_ngram(size: int) -> Filter:
    """Never complete an n-gram of ``size`` that the row already holds. The end symbol stays possible."""

    def completions(prefixes: IntArray) -> IntArray:
        rows, length = prefixes.shape
        starts = max(0, length - size + 1)  # of an n-gram so far; of one that this step would complete, the next
        seen: BoolArray | None = None  # (N, starts) the n-grams that begin like it
        for offset in range(size - 1 if starts else 0):
            same = prefixes[:, offset : offset + starts] == prefixes[:, starts + offset, None]
            seen = same if seen is None else seen & same
        if seen is None:
            seen = np.ones((rows, starts), dtype=np.bool_)
        if not seen.any():
            return prefixes[:, :0]
        some = np.flatnonzero(seen.any(axis=0))
        return np.where(seen[:, some], prefixes[:, some + size - 1], Vocabulary.pad)

    return completions
