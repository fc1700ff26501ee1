"""An n-gram language model over words, small enough to travel with a model."""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from captioner.errors import ModelError

Ngram = tuple[str, ...]
START, END = "<s>", "</s>"
ORDER = 3
DISCOUNT = 0.75  # taken off every count and given to what was not seen


class NgramModel:
    """Interpolated absolute discounting (Ney, Essen and Kneser 1994, section 3) over counts of up to three words.

    The counts may be pruned: whatever share of a history they leave goes to the shorter history.

    Args:
        counts: how often each n-gram was seen, :data:`START` and :data:`END` included; a history that begins an
            n-gram must be counted itself.

    Raises:
        ModelError: there are no words, or a history is not counted.
    """

    def __init__(self, counts: Mapping[Ngram, int]) -> None:
        self.counts = dict(counts)
        words = [count for ngram, count in self.counts.items() if len(ngram) == 1 and ngram != (START,)]
        if not words:
            raise ModelError("the language model has counted no words")
        self._uniform = 1 / len(words)
        totals: dict[Ngram, int] = {**self.counts, (): sum(words)}
        kept: defaultdict[Ngram, float] = defaultdict(float)
        self._shares: dict[Ngram, float] = {}
        for ngram, count in self.counts.items():
            if ngram != (START,):
                history = ngram[:-1]
                if history not in totals:
                    raise ModelError(f"the language model counts {' '.join(ngram)!r} but not {' '.join(history)!r}")
                self._shares[ngram] = max(0.0, count - DISCOUNT) / totals[history]
                kept[history] += self._shares[ngram]
        self._left = {history: 1 - share for history, share in kept.items()}
        self.log_probability = functools.lru_cache(maxsize=200_000)(self._log_probability)

    @classmethod
    def learn(cls, sentences: Iterable[Sequence[str]], *, min_count: int = 2) -> Self:
        """Count the n-grams of ``sentences``; those of two words and more are kept if seen ``min_count`` times."""
        counts: Counter[Ngram] = Counter()
        for words in sentences:
            line = (START, *words, END)
            for order in range(1, ORDER + 1):
                counts.update(line[start : start + order] for start in range(len(line) - order + 1))
        return cls({ngram: count for ngram, count in counts.items() if count >= min_count or len(ngram) == 1})

    def _log_probability(self, word: str, history: Ngram) -> float:
        """Natural logarithm of the probability of ``word`` (or :data:`END`) after ``history``, at most two words."""
        return math.log(self._probability(word, history))

    def _probability(self, word: str, history: Ngram) -> float:
        shorter = self._probability(word, history[1:]) if history else self._uniform
        return self._shares.get((*history, word), 0.0) + self._left.get(history, 1.0) * shorter
