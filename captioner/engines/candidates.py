"""What may come next: the tokens that a decoder offers each of its rows, and what they are worth.

Shapes: N rows, V vocabulary, M tokens offered to a row, F tokens that a row may not say,
f first ones of the vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from captioner.engines import BoolArray, FloatArray, IntArray


class Candidates(NamedTuple):
    """Tokens offered to N rows: some, or all V of them.

    Attributes:
        log_probs: (N, M) log-probabilities of the tokens, the caller's to change; in descending order where there are
            some alone.
        tokens: (N, M) their numbers; None where all are offered, in the order of the vocabulary.
    """

    log_probs: FloatArray
    tokens: IntArray | None = None

    @classmethod
    def likeliest(cls, log_probs: FloatArray, count: int | None) -> Self:
        """Of (N, V) log-probabilities the ``count`` largest of each row, as far as there are so many; None: all."""
        rows, vocabulary = log_probs.shape
        if count is None:
            return cls(log_probs)
        count = min(count, vocabulary)
        each = np.arange(rows)[:, None]
        found = log_probs.argpartition(vocabulary - count, axis=1)[:, vocabulary - count :]
        found = found[each, log_probs[each, found].argsort(axis=1)[:, ::-1]]
        return cls(log_probs[each, found], found)

    def at_least(self, count: int) -> Candidates:
        """So many candidates a row: where fewer are offered, impossible ones fill the places that are left."""
        lacking = count - self.log_probs.shape[1]
        if lacking <= 0 or self.tokens is None:
            return self
        missing = ((0, 0), (0, lacking))
        return Candidates(np.pad(self.log_probs, missing, constant_values=-np.inf), np.pad(self.tokens, missing))

    def forbid(self, tokens: IntArray) -> None:
        """Make (N, F) tokens impossible, each row its own; the same may stand there several times."""
        rows = np.arange(len(tokens))[:, None]
        if self.tokens is None:
            self.log_probs[rows, tokens] = -np.inf
        else:  # by marks on the vocabulary: to compare each with each would take long where they are many
            marks = np.zeros((len(tokens), 1 + max(self.tokens.max(), tokens.max())), dtype=np.bool_)
            marks[rows, tokens] = True
            self.log_probs[marks[rows, self.tokens]] = -np.inf

    def forbid_everywhere(self, first: BoolArray) -> None:
        """Make some of the vocabulary's first tokens impossible, those that (f,) marks, whatever the row.

        The last mark stands for all tokens from there on, and must be False.
        """
        if self.tokens is None:
            self.log_probs[:, : len(first)][:, first[: self.log_probs.shape[1]]] = -np.inf
        else:
            np.putmask(self.log_probs, first.take(self.tokens, mode="clip"), -np.inf)
