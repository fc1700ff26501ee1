"""What citation forms lack to be running speech: stress where none is told, weak words, pauses.

All of it is a heuristic for English by tables of words: no sentence is analysed. Words are known by their phones, so
that to, two and too are one; only what is a function word nearly always is weakened by its sound alone.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

from captioner.dictionary import pronunciations, stresses
from captioner.phones import split_stress, without_stress

# Function words in running speech, much as espeak-ng treats them in text: without stress, or with a secondary one.
WEAK = dict.fromkeys(
    """
    a an the and or but nor as at of with from than in is are am was were be been has have had can could would
    his her him he she it its it's they them their we you your that to for by
    """.split(),
    "0",
) | dict.fromkeys(
    """
    on up out off over into onto through down near under around along across behind between beside while who
    """.split(),
    "2",
)
AMBIGUOUS = frozenset({"to", "for", "by"})  # two, four and buy sound the same
OPENERS = frozenset(
    """
    and or but while as with who that which because in on at by from into onto through over under behind across
    between beside near around along against during towards toward
    """.split()
)
WORDS_BEFORE_PAUSE = 5
WORDS_AFTER_PAUSE = 4
MAX_SYLLABLES = 7  # of a word; what has more is taken for several


def weaken(word: str, phones: Sequence[str]) -> tuple[str, ...]:
    """A word's phones as running speech has them: ``"is"``, ``IH1 Z`` → ``IH0 Z``; other words stay as they are."""
    return tuple(phone.replace("1", WEAK[word]) for phone in phones) if word in WEAK else tuple(phones)


def running_speech(words: Sequence[Sequence[str]]) -> list[list[str]]:
    """The same phones; words that carry no digit of stress get theirs.

    A function word is weak unless it is the last one, another word is stressed as in the dictionary, and an unknown one
    on its first full vowel. What has more syllables than a word is a sequence without boundaries: its words cannot be
    known, so the stress falls on full vowels, though never on two in a row.

    Raises:
        OptionError: a token is no phone.
        DependencyError: the ``speech`` extra is not installed.
    """
    return [_stressed(word, last=index == len(words) - 1) for index, word in enumerate(words)]


def phrase_starts(words: Sequence[Sequence[str]]) -> list[int]:
    """Where a speaker pauses: the indices of the words that open a new phrase.

    Only conjunctions, relatives and prepositions do, and only between phrases of several words. Without boundaries
    between words there are no pauses.

    Raises:
        OptionError: a token is no phone.
        DependencyError: the ``speech`` extra is not installed.
    """
    opening: list[int] = []
    for index in range(WORDS_BEFORE_PAUSE, len(words) - WORDS_AFTER_PAUSE + 1):
        far = index - (opening[-1] if opening else 0) >= WORDS_BEFORE_PAUSE
        if far and _plain(words[index]) in _openers():
            opening.append(index)
    return opening


def _stressed(word: Sequence[str], *, last: bool) -> list[str]:
    if any(split_stress(token)[1] for token in word):
        return list(word)
    phones = " ".join(word)
    known = ("" if last else _weak_forms().get(phones, "")) or stresses().get(phones)
    return known.split() if known else _by_default(word)


def _by_default(word: Sequence[str]) -> list[str]:
    vowels = [index for index, token in enumerate(word) if split_stress(token)[0].vowel]
    # A lone AH at an edge, as in DH AH, is an article's or a suffix's schwa.
    full = [index for index in vowels if word[index] != "AH"] or [i for i in vowels if 0 < i < len(word) - 1]
    primary = full[:1]
    if len(vowels) > MAX_SYLLABLES:
        for before, index in itertools.pairwise(vowels):
            if index in full and before not in primary:
                primary.append(index)
    return [f"{token}{int(index in primary)}" if index in vowels else token for index, token in enumerate(word)]


@functools.cache
def _weak_forms() -> dict[str, str]:
    """Weak forms by their phones: ``"AH V"`` → ``"AH0 V"``."""
    forms = ((said.split(), word) for word, said in _ways_to_say(set(WEAK) - AMBIGUOUS))
    return {_plain(phones): " ".join(weaken(word, phones)) for phones, word in forms}


@functools.cache
def _openers() -> frozenset[str]:
    return frozenset(_plain(said.split()) for _, said in _ways_to_say(OPENERS))


def _ways_to_say(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    known = pronunciations()
    for word in sorted(words):
        for key in (word, *(f"{word}({number})" for number in range(2, 6))):
            if key in known:
                yield word, known[key]


def _plain(word: Sequence[str]) -> str:
    return " ".join(without_stress(word))
