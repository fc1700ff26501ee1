"""What a caller may ask of decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from captioner.config import Config, is_whole, require


@dataclass(frozen=True)
class DecodingOptions(Config):
    """How sequences are searched.

    Attributes:
        method: ``beam`` (beam size 1 is greedy) or ``sample``.
        beam_size: hypotheses kept per image.
        n_best: captions returned per image; at most ``beam_size`` for beam search.
        max_length: steps at most, the end symbol counted.
        length_penalty: a hypothesis' score is its log-probability over its length, end symbol included, to this
            power; 0 prefers short sequences, 1 compares means.
        no_repeat_ngram: no n-gram of this size occurs twice in a sequence; 0 allows repeats.
        rank: what makes a sequence that ended better than another: its ``score``; its score and the ``cider`` that
            the model expects of it for the image, where it has learnt to (:mod:`captioner.decoding.expectation`); or
            the ``consensus``, how much it agrees with all that ended, whatever the scores
            (:mod:`captioner.decoding.consensus`). These two choose among all that the search found, not ``n_best`` of
            them alone, and want many: a beam, or as many samples, of ten or twenty. Beside an expected CIDEr a score
            weighs what it does with the model's own ``length_penalty``.
        temperature, top_k, top_p: for sampling: softmax temperature; the k likeliest tokens alone (0: all); the
            smallest set of tokens that holds this probability alone (nucleus sampling, Holtzman et al. 2020).
        seed: for sampling: makes one call reproducible; None draws afresh.
    """

    method: str = "beam"
    beam_size: int = 3
    n_best: int = 1
    max_length: int = 30
    length_penalty: float = 1.0
    no_repeat_ngram: int = 0
    rank: str = "score"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in WHOLE_NUMBERS:
            value = getattr(self, name)
            require(is_whole(value) and low <= value <= high, f"{name} must be a whole number from {low} to {high}")
        for name, least, most in NUMBERS:
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            require(number and least <= value <= most, f"{name} must be a number from {least:g} to {most:g}")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            require(value in choices, f"{name} must be {listed(choices)}, not {value!r}")
        seedable = self.seed is None or (is_whole(self.seed) and self.seed >= 0)
        require(seedable, "seed must be a whole number, not below 0")
        require(
            self.method == "sample" or self.n_best <= self.beam_size,
            f"n_best is {self.n_best} but a beam of {self.beam_size} holds no more than that: raise beam_size",
        )


def listed(choices: Sequence[str]) -> str:
    """Several words as a sentence names them."""
    *others, last = choices
    return f"{', '.join(others)} or {last}"


CHOICES = {"method": ("beam", "sample"), "rank": ("score", "cider", "consensus")}
# The least and the most that each may be.
WHOLE_NUMBERS = (
    ("n_best", 1, 100),  # before beam_size, which follows n_best where it is not given
    ("beam_size", 1, 100),
    ("max_length", 1, 1000),
    ("no_repeat_ngram", 0, 100),
    ("top_k", 0, 1_000_000),
)
# Options that one method alone heeds.
ONLY_WITH = {"beam_size": "beam", "temperature": "sample", "top_k": "sample", "top_p": "sample", "seed": "sample"}
NUMBERS = (("length_penalty", 0.0, 10.0), ("temperature", 0.01, 100.0), ("top_p", 0.001, 1.0))
