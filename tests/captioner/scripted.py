"""An engine that says what it is told to, for tests of how its hypotheses are ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from captioner.decoding import DecodingOptions, Hypothesis, decode
from captioner.decoding.expectation import Judge
from captioner.engines import FloatArray, IntArray
from captioner.engines.candidates import Candidates
from captioner.tokens import Vocabulary

Tokens = tuple[int, ...]
FIRST = Vocabulary.unk + 1  # number of the first token that is a word


@dataclass(frozen=True)
class Rows:
    """The scripted engine's grid and state at once: which image a row belongs to, and what it has read."""

    images: IntArray
    prefixes: IntArray


class Script:
    """An engine that says certain sequences of each image with the given probabilities, and nothing else. P is 1."""

    name = "script"

    def __init__(self, *images: dict[Tokens, float]) -> None:
        self.images = images
        self.vocabulary = 1 + max(token for image in images for tokens in image for token in (*tokens, FIRST))

    def encode(self, pixels: FloatArray) -> Rows:
        return Rows(np.arange(len(pixels)), np.empty((len(pixels), 0), dtype=np.int64))

    def start(self, grid: Rows) -> Rows:
        return grid

    def step(
        self, tokens: IntArray, state: Rows, grid: Rows, count: int | None = None
    ) -> tuple[Candidates, Rows, FloatArray]:
        prefixes = np.concatenate((state.prefixes, tokens[:, None]), axis=1)
        shares = np.zeros((len(tokens), self.vocabulary))
        for row, (image, prefix) in enumerate(zip(state.images, prefixes[:, 1:].tolist(), strict=True)):
            for sequence, probability in self.images[image].items():
                if sequence[: len(prefix)] == tuple(prefix):
                    shares[row, (*sequence, Vocabulary.eos)[len(prefix)]] += probability
            shares[row, Vocabulary.pad] += not shares[row].any()  # a row that waits may hold anything
        with np.errstate(divide="ignore"):
            log_probs = np.log(shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
        return Candidates.likeliest(log_probs, count), Rows(state.images, prefixes), tokens[:, None].astype(np.float32)

    def select(self, value: Rows, rows: IntArray) -> Rows:
        return Rows(value.images[rows], value.prefixes[rows])


def run(engine: Script, *, judges: Sequence[Judge] = (), **options: Any) -> list[list[Hypothesis]]:
    """What the engine's images are decoded to, without a length penalty unless one is given."""
    images = len(engine.images)
    chosen = DecodingOptions(**{"length_penalty": 0.0} | options)
    return decode(engine, engine.encode(np.zeros((images, 1), dtype=np.float32)), images, chosen, judges)


def said(hypotheses: Sequence[Hypothesis]) -> list[Tokens]:
    return [one.tokens for one in hypotheses]
