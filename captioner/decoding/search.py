"""What every search shares: the rows it continues, the steps it took, the sequences it finished.

Shapes: A images still searched, K rows an image, N = A·K rows (image-major), V vocabulary, P grid positions.

A search never copies what was said so far. Each step records which rows it came from, and a finished sequence is
read back through those parents once, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from captioner.decoding.consensus import by_consensus
from captioner.decoding.expectation import Judge
from captioner.decoding.options import DecodingOptions
from captioner.engines import BoolArray, FloatArray, IntArray
from captioner.engines.candidates import Candidates
from captioner.tokens import Vocabulary


@dataclass(frozen=True)
class Hypothesis:
    """One sequence, the end symbol left out.

    Attributes:
        tokens: T token numbers.
        log_probability: natural logarithm of the sequence's probability, the end symbol's included.
        score: ``log_probability`` normalised by length. Hypotheses of one image are ranked by it; where something else
            ranks them too, their order is not that of their scores.
        token_log_probabilities: of each of the T tokens.
        weights: (T, P) where the model looked at each token.
        ended: False when the maximum length cut the sequence off.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    token_log_probabilities: tuple[float, ...]
    weights: FloatArray
    ended: bool


class Step(NamedTuple):
    """What a step chose for the rows that went on, and where the model looked meanwhile."""

    parents: IntArray  # (N,) rows of the previous step
    tokens: IntArray  # (N,)
    log_probs: FloatArray  # (N,) of those tokens
    weights: FloatArray  # (rows of the previous step, P)


class Finished(NamedTuple):
    """A sequence that goes on no further: ``row`` of ``step`` holds its last token; step -1 is the empty sequence."""

    score: float
    log_prob: float
    step: int
    row: int
    ended: bool


SPARE = 3  # times the rows of an image: how many finished sequences wait for a judge who may prefer a later one


class Search:
    """State of a search over ``images`` images with ``width`` rows each.

    Args:
        images: B.
        width: K, once the first step is taken.
        options: method and limits.
        first: rows of an image that the first step reads, 1 or K.

    Attributes:
        first_rows: the rows of the engine's first state (one an image) to start from.
        active: (A,) the images still searched, ascending.
        tokens: (N,) the token that each row reads next.
        prefixes: (N, t) each row's tokens so far.
        wanted: how many possible tokens each row is to be offered at a step; None for all.
    """

    wanted: int | None = None

    def __init__(self, images: int, width: int, options: DecodingOptions, *, first: int) -> None:
        self.options = options
        self.width = width
        self.first_rows: IntArray = np.arange(images).repeat(first)
        self.active: IntArray = np.arange(images)
        self.tokens: IntArray = np.full(images * first, Vocabulary.bos)
        self.prefixes: IntArray = np.empty((images * first, 0), dtype=np.int64)
        self.totals: FloatArray = np.zeros((images, first), dtype=np.float32)  # log-probability of each row
        self._steps: list[Step] = []
        self._kept = SPARE * width if options.rank == "cider" else width
        self._finished: list[list[Finished]] = [[] for _ in range(images)]

    @property
    def length(self) -> int:
        """Steps taken so far."""
        return len(self._steps)

    def advance(self, candidates: Candidates, weights: FloatArray) -> IntArray:
        """Choose the next tokens from what is offered to N rows; return the rows that they continue."""
        raise NotImplementedError

    def results(self, judges: Sequence[Judge] = ()) -> list[list[Hypothesis]]:
        """Each image's hypotheses, best first; what ended ranks before what was cut off.

        Args:
            judges: one an image, where they are ranked by ``cider``.
        """
        found = [sorted(each, key=lambda one: (not one.ended, -one.score))[: self._kept] for each in self._finished]
        said = [(step.tokens.tolist(), step.parents.tolist()) for step in self._steps]
        if self.options.rank == "consensus":
            found = [_reorder(each, lambda _, sequences: by_consensus(sequences), said) for each in found]
        elif self.options.rank == "cider":
            found = [_reorder(each, judge, said) for each, judge in zip(found, judges, strict=True)]
        return [[self._read(finished, said) for finished in each[: self.options.n_best]] for each in found]

    def finish(self, which: BoolArray, totals: FloatArray, step: int, rows: IntArray, *, ended: bool) -> None:
        """Set sequences aside: of the (A, m) given ones, those that ``which`` marks and that are possible.

        What ended ranks before what was cut off, whatever their scores.
        """
        places = (which & np.isfinite(totals)).nonzero()
        length = step + 2 if ended else step + 1  # the end symbol counts
        log_probs = totals[places]
        scores = log_probs / np.float32(length**self.options.length_penalty)
        images = self.active[places[0]].tolist()
        for image, score, log_prob, row in zip(
            images, scores.tolist(), log_probs.tolist(), rows[places].tolist(), strict=True
        ):
            self._finished[image].append(Finished(score, log_prob, step, row, ended))

    def proceed(self, step: Step, totals: FloatArray, unfinished: BoolArray) -> IntArray:
        """Record ``step`` and go on with the images that have ``unfinished`` (A, K) rows; return the rows continued.

        At the maximum length nothing goes on: what is unfinished is set aside as it is.
        """
        if self.length + 1 == self.options.max_length:
            self._steps.append(step)
            rows = np.arange(step.tokens.size).reshape(unfinished.shape)
            self.finish(unfinished, totals, self.length - 1, rows, ended=False)
            self.active = self.active[:0]
            return step.parents[:0]
        going = unfinished.any(axis=1)
        if not going.all():
            kept = going.repeat(self.width)
            step = step._replace(parents=step.parents[kept], tokens=step.tokens[kept], log_probs=step.log_probs[kept])
        self._steps.append(step)
        self.active, self.totals, self.tokens = self.active[going], totals[going], step.tokens
        self.prefixes = np.concatenate((self.prefixes.take(step.parents, axis=0), step.tokens[:, None]), axis=1)
        return step.parents

    def _read(self, finished: Finished, said: Said) -> Hypothesis:
        path = _path(finished, said)
        weights = [self._steps[step].weights[said[step][1][row]] for step, row in path]
        positions = self._steps[0].weights.shape[1] if self._steps else 0
        return Hypothesis(
            tokens=tuple(said[step][0][row] for step, row in path),
            log_probability=finished.log_prob,
            score=finished.score,
            token_log_probabilities=tuple(float(self._steps[step].log_probs[row]) for step, row in path),
            weights=np.array(weights, dtype=np.float32).reshape(len(path), positions),
            ended=finished.ended,
        )


# Of each step: the tokens of its rows, and their parents.
Said = list[tuple[list[int], list[int]]]


def _reorder(found: list[Finished], order: Judge, said: Said) -> list[Finished]:
    """Put what ended in another order; what was cut off says too little, and stays behind it."""
    ended = [one for one in found if one.ended]
    sequences = [[said[step][0][row] for step, row in _path(one, said)] for one in ended]
    scores = np.array([one.score for one in ended], dtype=np.float32)
    return [ended[place] for place in order(scores, sequences)] + [one for one in found if not one.ended]


def _path(finished: Finished, said: Said) -> list[tuple[int, int]]:
    """The steps that made a sequence, by number, each with the row it went on in."""
    row, path = finished.row, []
    for step in range(finished.step, -1, -1):
        path.append((step, row))
        row = said[step][1][row]
    return path[::-1]
