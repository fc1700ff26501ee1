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
from captioner.engines import Array, BoolArray, FloatArray, IntArray
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


# A finished sequence: ``row`` of ``step`` holds its last token; step -1 stands for the empty sequence.
FINISHED = np.dtype([("score", "f4"), ("log_prob", "f4"), ("step", "i8"), ("row", "i8"), ("ended", "?")])
SPARE = 3  # times the rows of an image: how many finished sequences wait for a judge who may prefer a later one
NOTHING = np.array((-np.inf, -np.inf, -1, 0, False), dtype=FINISHED)


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
    """

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
        self._finished: Array = np.full((images, self._kept), NOTHING)  # the best of each image, best first

    @property
    def length(self) -> int:
        """Steps taken so far."""
        return len(self._steps)

    def advance(self, log_probs: FloatArray, weights: FloatArray) -> IntArray:
        """Choose the next tokens from (N, V) log-probabilities; return the rows that they continue."""
        raise NotImplementedError

    def results(self, judges: Sequence[Judge] = ()) -> list[list[Hypothesis]]:
        """Each image's hypotheses, best first; what ended ranks before what was cut off.

        Args:
            judges: one an image, where they are ranked by ``cider``.
        """
        found = [row[np.isfinite(row["score"])] for row in self._finished]
        if self.options.rank == "consensus":
            found = [self._reorder(row, lambda _, said: by_consensus(said)) for row in found]
        elif self.options.rank == "cider":
            found = [self._reorder(row, judge) for row, judge in zip(found, judges, strict=True)]
        return [[self._read(finished) for finished in row[: self.options.n_best]] for row in found]

    def finish(self, which: BoolArray, totals: FloatArray, step: int, rows: IntArray, *, ended: bool) -> None:
        """Set sequences aside: of the (A, m) given ones, those that ``which`` marks.

        What ended ranks before what was cut off, whatever their scores.
        """
        some = which.any(axis=1)
        which, images = which[some], self.active[some]
        new = np.full(which.shape, NOTHING)
        length = step + 2 if ended else step + 1  # the end symbol counts
        new["score"] = np.where(which, totals[some] / np.float32(length**self.options.length_penalty), -np.inf)
        new["log_prob"], new["step"], new["row"], new["ended"] = totals[some], step, rows[some], which & ended
        both = np.concatenate((self._finished[images], new), axis=1)
        order = np.lexsort((-both["score"], ~both["ended"]), axis=1)[:, : self._kept]
        self._finished[images] = np.take_along_axis(both, order, axis=1)

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
        self.prefixes = np.concatenate((self.prefixes[step.parents], step.tokens[:, None]), axis=1)
        return step.parents

    def _reorder(self, found: Array, order: Judge) -> Array:
        """Put what ended in another order; what was cut off says too little, and stays behind it."""
        ended, cut_off = found[found["ended"]], found[~found["ended"]]
        said = [[int(step.tokens[row]) for step, row in self._path(finished)] for finished in ended]
        return np.concatenate((ended[order(ended["score"], said)], cut_off))

    def _path(self, finished: Array) -> list[tuple[Step, int]]:
        """The steps that made a sequence, each with the row it went on in."""
        row, path = int(finished["row"]), []
        for step in self._steps[finished["step"] :: -1] if finished["step"] >= 0 else ():
            path.append((step, row))
            row = int(step.parents[row])
        return path[::-1]

    def _read(self, finished: Array) -> Hypothesis:
        path = self._path(finished)
        weights = [step.weights[step.parents[row]] for step, row in path]
        positions = self._steps[0].weights.shape[1] if self._steps else 0
        return Hypothesis(
            tokens=tuple(int(step.tokens[row]) for step, row in path),
            log_probability=float(finished["log_prob"]),
            score=float(finished["score"]),
            token_log_probabilities=tuple(float(step.log_probs[row]) for step, row in path),
            weights=np.array(weights, dtype=np.float32).reshape(len(path), positions),
            ended=bool(finished["ended"]),
        )
