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
        starts = prefixes.shape[1] - size + 1  # of an n-gram so far; of the one that this step would complete, the next
        if starts < 1:
            return prefixes[:, :0]
        seen: BoolArray = np.ones((len(prefixes), starts), dtype=np.bool_)  # the n-grams that begin like that one
        for offset in reversed(range(size - 1)):  # its latest token first, which mostly settles it
            seen &= prefixes[:, offset : offset + starts] == prefixes[:, starts + offset, None]
            if not seen.any():
                return prefixes[:, :0]
        some = np.flatnonzero(seen.any(axis=0))
        return np.where(seen[:, some], prefixes[:, some + size - 1], Vocabulary.pad)

    return completions
