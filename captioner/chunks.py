"""What espeak-ng is given: text and phones in chunks that it reads in one call, phones in its mnemonics."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from captioner.phones import PHONES, split_stress, split_words
from captioner.prosody import phrase_starts, running_speech

MAX_PHONES = 40  # without a space
MAX_BYTES = 600  # a chunk
PAUSE = "_:"  # a tenth of a second
STRESS_MARKS = {"": "", "0": "", "1": "'", "2": ","}

# Variants of phones that the voices take themselves when they read text: vowels coloured by the R behind them, which
# British voices leave silent as their speakers do; short ones; and a schwa that does not melt into an R behind it.
COLOURED = {"AA": "A@", "AO": "o@", "EH": "e@", "IH": "i@3", "UH": "U@"}
UNSTRESSED = {"ER0": "3", "IY0": "i"}
FIRM_SCHWA = {"R": "@2", "": "a#"}  # by what follows in the word
_READ_BACK = (
    {variant: [PHONES[vowel].espeak, "r"] for vowel, variant in COLOURED.items()}
    | {variant: [PHONES[vowel[:2]].espeak] for vowel, variant in UNSTRESSED.items()}
    | {schwa: ["@"] for schwa in FIRM_SCHWA.values()}
    | {"t#": ["t"], "O@": ["O:", "r"]}  # a tapped t; a British o@
)
_LINKS = {"r-", ";"}  # between two vowels


def text_chunks(text: str | Iterable[str]) -> Iterator[str]:
    """Text in parts that espeak-ng reads in one call: whole sentences where they fit, else whole words.

    Args:
        text: whole or in parts, which may end anywhere.
    """
    rest = ""
    for part in [text] if isinstance(text, str) else text:
        *sentences, rest = re.split(r"(?<=[.!?;:])\s+", rest + _readable(part))
        for sentence in sentences:
            yield from _sentence_chunks(sentence)
        if len(rest) > 2 * MAX_BYTES:  # a long sentence: what is left of it must not grow with the text
            *chunks, last = [*_sentence_chunks(rest)] or [""]
            yield from chunks
            rest = last + " " * rest[-1:].isspace()
    yield from _sentence_chunks(rest)


def _readable(text: str) -> str:
    return "".join(" " if unicodedata.category(character)[0] == "C" else character for character in text)


def _sentence_chunks(sentence: str) -> Iterator[str]:
    return _packed((piece for word in sentence.split() for piece in _cut(word)), " ", MAX_BYTES)


def _cut(word: str) -> Iterator[str]:
    """A word in pieces of at most :data:`MAX_BYTES` bytes; four bytes are the most that a character has."""
    for start in range(0, len(word), MAX_BYTES // 4):
        yield word[start : start + MAX_BYTES // 4]


def phone_chunks(tokens: Sequence[str]) -> Iterator[str]:
    """Phones in parts that espeak-ng speaks in one call, in its spelling: ``"[[D|@ d|'O:|g]]"``.

    They end between phrases where they can, see :mod:`captioner.prosody`.

    Raises:
        OptionError: a token is no phone.
        DependencyError: stress is missing, and so is the dictionary that tells it.
    """
    words = running_speech(list(split_words(tokens)))
    starts = [0, *phrase_starts(words), len(words)]
    phrases = (words[start:end] for start, end in itertools.pairwise(starts))
    most = MAX_BYTES - len("[[]]")
    parts = (part for phrase in phrases for part in _packed(_blocks(phrase), " ", most))
    for chunk in _packed(parts, f" {PAUSE} ", most):
        yield f"[[{chunk}]]"


def _blocks(words: Iterable[Sequence[str]]) -> Iterator[str]:
    """Words in pieces of at most :data:`MAX_PHONES` phones, spelt for espeak-ng."""
    for word in words:
        spelt = mnemonics(word)
        for start in range(0, len(spelt), MAX_PHONES):
            yield "|".join(spelt[start : start + MAX_PHONES])


def _packed(pieces: Iterable[str], separator: str, most: int) -> Iterator[str]:
    """Pieces joined as long as they fit into ``most`` bytes."""
    pack = ""
    for piece in pieces:
        longer = f"{pack}{separator}{piece}" if pack else piece
        if len(longer.encode()) > most:
            yield pack
            longer = piece
        pack = longer
    if pack:
        yield pack


def mnemonics(word: Sequence[str]) -> list[str]:
    """A word's phones as espeak-ng spells them, ``K AA1 R`` → ``k 'A@``; a vowel without a digit has no stress.

    Raises:
        OptionError: a token is no phone.
    """
    spelt: list[str] = []
    for before, token, after in zip(["", *word], word, [*word[1:], ""], strict=False):
        phone, stress = split_stress(token)
        if token == "R" and before[:2] in COLOURED and not (after and split_stress(after)[0].vowel):
            spelt[-1] = STRESS_MARKS[before[2:]] + COLOURED[before[:2]]
        elif token == "AH0" and after in FIRM_SCHWA:
            spelt.append(FIRM_SCHWA[after])
        else:
            spelt.append(STRESS_MARKS[stress] + UNSTRESSED.get(token, phone.espeak))
    return spelt


def read_back(spoken: Iterable[str]) -> list[str]:
    """What espeak-ng reports, its variants read as the phones that were asked for: ``k 'A@`` → ``k 'A: r``."""
    plain: list[str] = []
    for phone in spoken:
        name = phone.lstrip("',")
        if name not in _LINKS:
            first, *more = _READ_BACK.get(name, [name])
            plain += [phone[: len(phone) - len(name)] + first, *more]
    return plain
