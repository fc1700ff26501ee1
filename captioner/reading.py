"""Phones → words: what a phone sequence reads like, for those who would rather see than hear it.

A lexicon says which phones make a word, a language model which words follow one another; the likeliest sequence of
words that accounts for every phone is found by dynamic programming over the places between phones (Viterbi 1967).
"""

from __future__ import annotations

import functools
import heapq
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from captioner.errors import ModelError, OptionError
from captioner.ngrams import END, ORDER, START, Ngram, NgramModel
from captioner.phones import BOUNDARY, NOISE, SILENCE, split_stress

WORDS_NAME = "words.json"  # in the directory of a model whose phones can be read
FORMAT_VERSION = 1

Phones = tuple[str, ...]

# In natural logarithms, beside the language model's own: a common word costs 3, a rare one 12.
UNKNOWN_WORD, UNKNOWN_PHONE = -12.0, -3.0
MOVED_BOUNDARY = -8.0  # a word ends where no boundary is, or goes on across one
LONGEST_UNKNOWN = 16  # phones
BEAM = 30  # histories kept at a place


class Reading(NamedTuple):
    """A way to read the phones up to some place; one step of the way back."""

    score: float
    word: str
    before: Reading | None


class WordReader:
    """Reads phone sequences as words. Stress is ignored: phones with and without it read alike.

    Args:
        lexicon: the pronunciations of each word.
        language: which words follow one another.

    Raises:
        ModelError: the lexicon is empty.
    """

    def __init__(self, lexicon: Mapping[str, Iterable[Phones]], language: NgramModel) -> None:
        self.lexicon = {word: tuple(pronunciations) for word, pronunciations in lexicon.items()}
        self.language = language
        words: defaultdict[Phones, list[str]] = defaultdict(list)
        for word, pronunciations in self.lexicon.items():
            for phones in dict.fromkeys(plain(phones) for phones in pronunciations):
                words[phones].append(word)
        if not words:
            raise ModelError("the lexicon has no words")
        self._words = dict(words)
        self._longest = max(map(len, self._words))

    def read(self, tokens: Sequence[str]) -> list[str]:
        """The likeliest words.

        Boundaries in ``tokens`` guide where words end, but do not bind; without any, phones alone decide. A stretch
        that no words account for is given as its phones between slashes: ``"/S K UW T/"``.
        """
        phones, boundaries = _split(tokens)
        places: list[dict[Ngram, Reading]] = [{} for _ in range(len(phones) + 1)]  # the best by its last words
        places[0][(START,)] = Reading(0.0, "", None)
        for start in range(len(phones)):
            best = heapq.nlargest(BEAM, places[start].items(), key=lambda one: one[1].score)
            for end, word, price in self._words_from(start, phones, boundaries):
                known = word in self.lexicon
                for history, reading in best if known else best[:1]:  # behind an unknown word, no history matters
                    score = reading.score + price + (self.language.log_probability(word, history) if known else 0.0)
                    following = (*history, word)[1 - ORDER :]
                    if following not in places[end] or places[end][following].score < score:
                        places[end][following] = Reading(score, word, reading)
        _, last = max(places[-1].items(), key=lambda one: one[1].score + self.language.log_probability(END, one[0]))
        return list(_trace(last))[::-1]

    def _words_from(self, start: int, phones: Phones, boundaries: frozenset[int]) -> Iterator[tuple[int, str, float]]:
        """Words that may begin at a place: where each ends, and what it costs beside the language model."""
        for end in range(start + 1, min(len(phones), start + max(self._longest, LONGEST_UNKNOWN)) + 1):
            crossed = sum(start < boundary < end for boundary in boundaries)
            moved = crossed + bool(boundaries and end < len(phones) and end not in boundaries)
            for word in self._words.get(phones[start:end], ()):
                yield end, word, moved * MOVED_BOUNDARY
            if end - start <= LONGEST_UNKNOWN:  # wherever it begins or ends: there must be some way to read anything
                price = UNKNOWN_WORD + (end - start) * UNKNOWN_PHONE + moved * MOVED_BOUNDARY
                yield end, f"/{' '.join(phones[start:end])}/", price

    def save(self, directory: Path) -> None:
        """Write :data:`WORDS_NAME` into a model's directory."""
        content = {
            "format": "captioner words",
            "format_version": FORMAT_VERSION,
            "lexicon": {word: [" ".join(phones) for phones in spoken] for word, spoken in self.lexicon.items()},
            "ngrams": {" ".join(ngram): count for ngram, count in self.language.counts.items()},
        }
        text = json.dumps(content, ensure_ascii=False, indent=0)
        (directory / WORDS_NAME).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """The reader of a model; None if its directory has none.

        Raises:
            ModelError: the file is broken or of another version.
        """
        path = directory / WORDS_NAME
        try:
            return cls._from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ModelError) as error:
            raise ModelError(f"cannot read {path}: {error!r}") from error

    @classmethod
    def _from_dict(cls, values: Mapping[str, Any]) -> Self:
        version = values["format"], values["format_version"]
        if version != ("captioner words", FORMAT_VERSION):
            raise ModelError(f"it is of format {version}, this captioner reads version {FORMAT_VERSION}")
        lexicon = {word: [tuple(phones.split()) for phones in spoken] for word, spoken in values["lexicon"].items()}
        return cls(lexicon, NgramModel({tuple(ngram.split()): count for ngram, count in values["ngrams"].items()}))


def plain(tokens: Iterable[str]) -> Phones:
    """Phones without stress; symbols of other languages stay as they are."""
    return tuple(map(_unstressed, tokens))


@functools.lru_cache(maxsize=1000)  # over and over the same few symbols
def _unstressed(token: str) -> str:
    try:
        return split_stress(token)[0].arpabet
    except OptionError:
        return token


def _split(tokens: Sequence[str]) -> tuple[Phones, frozenset[int]]:
    """The phones, and how many of them stand before each boundary; silence is one."""
    phones: list[str] = []
    boundaries = set()
    for token in tokens:
        if token in (BOUNDARY, SILENCE):
            boundaries.add(len(phones))
        elif token != NOISE:
            phones.append(token)
    return plain(phones), frozenset(boundaries)


def _trace(reading: Reading) -> Iterator[str]:
    """The words of a way, last first."""
    while reading.before is not None:
        yield reading.word
        reading = reading.before
