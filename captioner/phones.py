"""The phone set of English, ARPAbet, and its other spellings: IPA, and the mnemonics of espeak-ng.

A phone sequence is a sequence of tokens: the 39 phones of the CMU Pronouncing Dictionary, a vowel with or without a
digit of stress behind it (0 none, 1 primary, 2 secondary), and optionally :data:`BOUNDARY` between words. Those of
recordings may also hold :data:`SILENCE`, which stands in a boundary's place, and :data:`NOISE`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from captioner.errors import OptionError

BOUNDARY, SILENCE, NOISE = "|", "SIL", "SPN"
STRESSES = ("0", "1", "2")


@dataclass(frozen=True)
class Phone:
    """A phone in three spellings.

    Attributes:
        arpabet: without stress.
        ipa: General American.
        espeak: what espeak-ng's American voice calls it.
        vowel: only vowels carry stress.
    """

    arpabet: str
    ipa: str
    espeak: str
    vowel: bool = False


_VOWELS = {
    "AA": ("ɑ", "A:"),
    "AE": ("æ", "a"),
    "AH": ("ʌ", "V"),  # unstressed it is a schwa: ə, @
    "AO": ("ɔ", "O:"),
    "AW": ("aʊ", "aU"),
    "AY": ("aɪ", "aI"),
    "EH": ("ɛ", "E"),
    "ER": ("ɝ", "3:"),
    "EY": ("eɪ", "eI"),
    "IH": ("ɪ", "I"),
    "IY": ("i", "i:"),
    "OW": ("oʊ", "oU"),
    "OY": ("ɔɪ", "OI"),
    "UH": ("ʊ", "U"),
    "UW": ("u", "u:"),
}
_CONSONANTS = {
    "B": ("b", "b"),
    "CH": ("tʃ", "tS"),
    "D": ("d", "d"),
    "DH": ("ð", "D"),
    "F": ("f", "f"),
    "G": ("ɡ", "g"),
    "HH": ("h", "h"),
    "JH": ("dʒ", "dZ"),
    "K": ("k", "k"),
    "L": ("l", "l"),
    "M": ("m", "m"),
    "N": ("n", "n"),
    "NG": ("ŋ", "N"),
    "P": ("p", "p"),
    "R": ("ɹ", "r"),
    "S": ("s", "s"),
    "SH": ("ʃ", "S"),
    "T": ("t", "t"),
    "TH": ("θ", "T"),
    "V": ("v", "v"),
    "W": ("w", "w"),
    "Y": ("j", "j"),
    "Z": ("z", "z"),
    "ZH": ("ʒ", "Z"),
}
PHONES: dict[str, Phone] = {
    name: Phone(name, ipa, espeak, vowel)
    for table, vowel in ((_VOWELS, True), (_CONSONANTS, False))
    for name, (ipa, espeak) in table.items()
}
SCHWA = Phone("AH", "ə", "@", vowel=True)


def split_stress(token: str) -> tuple[Phone, str]:
    """A token's phone and its stress: ``"AE1"`` → ``(AE, "1")``, ``"AE"`` → ``(AE, "")``.

    Raises:
        OptionError: there is no such phone, or it cannot be stressed.
    """
    name, stress = (token[:-1], token[-1]) if token[-1:] in STRESSES else (token, "")
    phone = PHONES.get(name)
    if phone is None or (stress and not phone.vowel):
        raise OptionError(
            f"{reprlib.repr(token)} is no ARPAbet phone; phones are {' '.join(PHONES)}, vowels with 0, 1 or 2 behind"
        )
    return (SCHWA if name == "AH" and stress == "0" else phone), stress


def parse_phones(text: str) -> list[str]:
    """Tokens from text: ``"dh ah0 | d ao1 g"`` → ``["DH", "AH0", "|", "D", "AO1", "G"]``.

    Raises:
        OptionError: a token is no phone, or there is none.
    """
    return check_phones(text.split())


def check_phones(tokens: Iterable[str]) -> list[str]:
    """The same tokens in upper case.

    Raises:
        OptionError: a token is no phone, or there is none.
    """
    checked = [token.upper() for token in tokens]
    if all(token == BOUNDARY for token in checked):
        raise OptionError("there are no phones to speak")
    for token in checked:
        if token != BOUNDARY:
            split_stress(token)
    return checked


def without_stress(tokens: Iterable[str]) -> list[str]:
    """The same phones, stress left out.

    Raises:
        OptionError: a token is no phone.
    """
    return [token if token == BOUNDARY else split_stress(token)[0].arpabet for token in tokens]


def split_words(tokens: Sequence[str]) -> Iterator[list[str]]:
    """The phones of each word; boundaries, silence, noise and empty words are left out."""
    word: list[str] = []
    for token in (*tokens, BOUNDARY):
        if token not in (BOUNDARY, SILENCE, NOISE):
            word.append(token)
        elif word and token != NOISE:
            yield word
            word = []


def to_ipa(tokens: Sequence[str]) -> str:
    """IPA, a space between words: ``["DH", "AH0", "|", "D", "AO1", "G"]`` → ``"ðə dˈɔɡ"``.

    Stress marks stand before the vowel, not the syllable, as espeak-ng writes them.

    Raises:
        OptionError: a token is no phone.
    """
    marks = {"": "", "0": "", "1": "ˈ", "2": "ˌ"}
    pairs = [[split_stress(token) for token in word] for word in split_words(tokens)]
    return " ".join("".join(marks[stress] + phone.ipa for phone, stress in word) for word in pairs)


# What transcriptions of General American write for the same phones.
_IPA_VARIANTS = {
    "AA": "ɑː ɒ",
    "AE": "a",
    "AH": "ə ɐ",
    "AO": "ɔː oː",
    "EH": "e",
    "ER": "ɚ ɜ ɜː ɜɹ ɜːɹ əɹ",
    "IH": "ᵻ ɨ",
    "IY": "iː",
    "OW": "o əʊ",
    "UW": "uː",
    "CH": "t͡ʃ ʧ",
    "G": "g",
    "JH": "d͡ʒ ʤ",
    "K": "x",
    "L": "ɫ",
    "R": "r",
    "T": "ɾ ʔ",
}
_IPA = {phone.ipa: phone.arpabet for phone in PHONES.values()} | {
    ipa: arpabet for arpabet, variants in _IPA_VARIANTS.items() for ipa in variants.split()
}
_SYLLABIC = "\N{COMBINING VERTICAL LINE BELOW}"
_IPA_STRESS = {"ˈ": "1", "ˌ": "2"}
_IPA_IGNORED = (
    "ː.‿"
    "\N{COMBINING VERTICAL LINE BELOW}"
    "\N{COMBINING INVERTED BREVE BELOW}"
    "\N{COMBINING DOUBLE INVERTED BREVE}"
    "\N{COMBINING TILDE}"
)


def from_ipa(text: str) -> list[str]:
    """Tokens from an IPA transcription of English; white space becomes :data:`BOUNDARY`.

    The longest spelling wins, so ``tʃ`` is CH. A syllabic l, m or n gets its vowel.

    Raises:
        OptionError: a symbol stands for no English phone.
    """
    tokens: list[str] = []
    for word in text.split():
        if tokens:
            tokens.append(BOUNDARY)
        stress, marked, at = "", any(mark in word for mark in _IPA_STRESS), 0
        while at < len(word):
            if word[at] in _IPA_STRESS:
                stress, at = _IPA_STRESS[word[at]], at + 1
                continue
            size = next((size for size in (3, 2, 1) if word[at : at + size] in _IPA), 0)
            if size == 0 and word[at] in _IPA_IGNORED:
                at += 1
                continue
            if size == 0:
                raise OptionError(f"{word[at]!r} in {word!r} is no IPA symbol of an English phone")
            name = _IPA[word[at : at + size]]
            at += size
            if word[at : at + 1] == _SYLLABIC:
                tokens.append(f"AH{stress or 0}" if marked else "AH")
                stress = ""
            if PHONES[name].vowel and marked:
                name, stress = name + (stress or "0"), ""
            tokens.append(name)
    return tokens
