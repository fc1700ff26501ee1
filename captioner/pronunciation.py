"""English text → phones: the CMU Pronouncing Dictionary, and espeak-ng's rules for the words that it lacks."""

from __future__ import annotations

import functools
import importlib.util
import re
import reprlib
from collections.abc import Callable, Sequence

from captioner.dictionary import pronunciations
from captioner.errors import DependencyError, OptionError
from captioner.phones import BOUNDARY, from_ipa, split_stress
from captioner.prosody import weaken

Pronunciation = tuple[str, ...]
Transcribe = Callable[[Sequence[str]], list[str]]

SYMBOLS = {"&": "and", "%": "percent", "@": "at", "+": "plus", "=": "equals", "#": "number"}
_TOKEN = re.compile(
    r"[$£€]?\d+(?:,\d{3})*(?:\.\d+)?(?:(?:st|nd|rd|th|'?s)\b)?"  # $2,000, 3.5, 3rd, 1980s
    r"|[^\W\d_]+(?:'[^\W\d_]+)*'?"  # dog, dog's, dogs'
    r"|[&%@+=#]"
)
_NUMBER = re.compile(r"(?P<money>[$£€])?(?P<digits>[\d,]+(?:\.\d+)?)(?P<ending>st|nd|rd|th|'?s)?")
MAX_DIGITS = 60
_MONEY = {"$": "dollars", "£": "pounds", "€": "euros"}

# Words spelt alike: how they sound as a verb, and otherwise. Where neither is listed, the dictionary's first is taken.
_HOMOGRAPHS = {
    "bow": ("B AW1", "B OW1"),
    "bows": ("B AW1 Z", "B OW1 Z"),
    "lead": ("L IY1 D", "L IY1 D"),
    "leads": ("L IY1 D Z", "L IY1 D Z"),
    "live": ("L IH1 V", "L AY1 V"),
    "object": ("AH0 B JH EH1 K T", "AA1 B JH EH0 K T"),
    "present": ("P R IY0 Z EH1 N T", "P R EH1 Z AH0 N T"),
    "read": ("R IY1 D", "R EH1 D"),
    "record": ("R AH0 K AO1 R D", "R EH1 K ER0 D"),
    "tear": ("T EH1 R", "T IH1 R"),
    "use": ("Y UW1 Z", "Y UW1 S"),
    "wind": ("W AY1 N D", "W IH1 N D"),
    "winds": ("W AY1 N D Z", "W IH1 N D Z"),
    "wound": ("W AW1 N D", "W UW1 N D"),
}
# Behind these, a word that can be a verb is one.
_BEFORE_VERBS = frozenset(
    """
    to will would can could may might must shall should do does did don't doesn't didn't can't cannot won't let's
    i you we they who that people men women boys girls children kids dogs
    """.split()
)
# And behind these one that ends in s: a man bows.
_SINGULARS = frozenset(
    "he she it who that man woman boy girl child kid person player performer dancer lady guy road path".split()
)


class Pronouncer:
    """Pronounces English.

    Args:
        transcribe: IPA of words that the dictionary lacks, as :meth:`captioner.speech.EspeakSpeaker.transcribe` gives.

    Raises:
        DependencyError: the ``speech`` extra is not installed.
    """

    def __init__(self, transcribe: Transcribe) -> None:
        if importlib.util.find_spec("num2words") is None:
            raise DependencyError("pronouncing needs num2words: pip install 'captioner[speech]' brings it")
        self._dictionary = pronunciations()
        self._transcribe = transcribe
        self._guess = functools.lru_cache(maxsize=100_000)(self._rules)

    def __call__(self, text: str) -> list[str]:
        """Phones with stress, :data:`captioner.phones.BOUNDARY` between words.

        Numbers and symbols are spelt out, punctuation is left out.

        Raises:
            OptionError: a word cannot be pronounced, as one in another script.
        """
        words = spell_out(text)
        tokens: list[str] = []
        for phones in [self._word(words, index) for index in range(len(words))]:
            if tokens:
                if tokens[-2:] == ["DH", "AH0"] and split_stress(phones[0])[0].vowel:
                    tokens[-1] = "IY0"  # the apple
                tokens.append(BOUNDARY)
            tokens += phones
        return tokens

    def _word(self, words: Sequence[str], index: int) -> Pronunciation:
        word = words[index]
        if word in _HOMOGRAPHS:
            before = words[index - 1] if index else ""
            verb = before in _BEFORE_VERBS or (word.endswith("s") and before in _SINGULARS)
            return tuple(_HOMOGRAPHS[word][0 if verb else 1].split())
        phones = self._known(word) or self._guess(word)
        return phones if index == len(words) - 1 else weaken(word, phones)

    def _known(self, word: str) -> Pronunciation | None:
        """From the dictionary, possessives of its words included."""
        if word in self._dictionary:
            return tuple(self._dictionary[word].split())
        base = tuple(self._dictionary.get(word.removesuffix("'s").removesuffix("'"), "").split())
        if not base:
            return None
        # An apostrophe alone is silent: it ends a plural's possessive or a quotation.
        return (*base, *_possessive(base[-1])) if word.endswith("'s") else base

    def _rules(self, word: str) -> Pronunciation:
        (ipa,) = self._transcribe([word])
        try:
            phones = tuple(phone for phone in from_ipa(ipa) if phone != BOUNDARY)
        except OptionError as error:
            raise OptionError(f"{word!r} cannot be pronounced in English: {error}") from error
        if not phones:
            raise OptionError(f"{word!r} cannot be pronounced in English")
        return phones


def _possessive(last: str) -> Pronunciation:
    """What apostrophe and s add to a word that ends in the phone ``last``."""
    phone = split_stress(last)[0].arpabet
    if phone in ("S", "Z", "SH", "ZH", "CH", "JH"):
        return ("IH0", "Z")
    return ("S",) if phone in ("P", "T", "K", "F", "TH") else ("Z",)


def spell_out(text: str) -> list[str]:
    """Lower-case words: ``"2 dogs & a cat's toy!"`` → ``["two", "dogs", "and", "a", "cat's", "toy"]``."""
    words: list[str] = []
    for token in _TOKEN.findall(text.lower().replace("’", "'")):
        if token in SYMBOLS:
            words.append(SYMBOLS[token])
        elif any(character.isdigit() for character in token):
            words += _number(token)
        else:
            words.append(token)
    return words


def _number(token: str) -> list[str]:
    from num2words import num2words

    match = _NUMBER.fullmatch(token)
    if match is None:  # such as a digit in a circle
        return [token]
    digits, ending = match["digits"].replace(",", ""), match["ending"] or ""
    if len(digits) > MAX_DIGITS:
        raise OptionError(f"the number {reprlib.repr(token)} is too large to be pronounced")
    value = float(digits) if "." in digits else int(digits)
    year = digits == match["digits"] and len(digits) == 4 and 1100 <= value < 2100 and not match["money"]
    kind = "ordinal" if ending in ("st", "nd", "rd", "th") else "year" if year else "cardinal"
    said = num2words(value, to=kind) if kind != "ordinal" or isinstance(value, int) else num2words(value)
    words: list[str] = re.findall(r"[a-z]+", said)
    if ending.endswith("s"):  # the 1980s, two 6s
        last = words[-1]
        words[-1] = f"{last[:-1]}ies" if last.endswith("y") else f"{last}es" if last.endswith("x") else f"{last}s"
    if match["money"]:
        unit = _MONEY[match["money"]]
        words.append(unit.removesuffix("s") if value == 1 else unit)
    return words
