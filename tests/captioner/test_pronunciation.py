from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from captioner.errors import DependencyError, OptionError
from captioner.phones import split_words
from captioner.pronunciation import Pronouncer, spell_out
from captioner.speech import EspeakSpeaker


@pytest.fixture(scope="module")
def pronounce() -> Iterator[Pronouncer]:
    with EspeakSpeaker() as speaker:
        yield Pronouncer(speaker.transcribe)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two dogs, running!", "two dogs running"),
        ("2 dogs & a cat's #1 toy", "two dogs and a cat's number one toy"),
        ("on the 3rd of 21 days", "on the third of twenty one days"),
        ("the 1980s, in 1999 and 2,000", "the nineteen eighties in nineteen ninety nine and two thousand"),
        ("$5 or £2.50 at 10%", "five dollars or two point five pounds at ten percent"),
        ("a 49ers t-shirt, 20ft mid-air", "a forty nine ers t shirt twenty ft mid air"),
        ("the dogs’ ball isn’t O'Neil's", "the dogs' ball isn't o'neil's"),
        ("10:30", "ten thirty"),
        ("$1, two 6s", "one dollar two sixes"),
        ("a 'beware of dog' sign", "a beware of dog' sign"),
        ("... !?", ""),
        ("", ""),
    ],
)
def test_text_is_spelt_out(text: str, words: str) -> None:
    assert spell_out(text) == words.split()


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("A dog runs.", "AH0 | D AO1 G | R AH1 N Z"),
        ("the bike, the apple", "DH AH0 | B AY1 K | DH IY0 | AE1 P AH0 L"),
        ("the cats' toy, a biker's horse's hats'", None),
        ("to live near a live band", "T UW0 | L IH1 V | N IH2 R | AH0 | L AY1 V | B AE1 N D"),
        ("two dogs close to a bow", "T UW1 | D AA1 G Z | K L OW1 S | T UW0 | AH0 | B OW1"),
        ("people use wind", "P IY1 P AH0 L | Y UW1 Z | W IH1 N D"),
        ("a man bows, dogs with bows", "AH0 | M AE1 N | B AW1 Z | D AA1 G Z | W IH0 DH | B OW1 Z"),
        ("he is on it, is he", "HH IY0 | IH0 Z | AA2 N | IH0 T | IH0 Z | HH IY1"),
        ("a 'no dog' sign", "AH0 | N OW1 | D AO1 G | S AY1 N"),
    ],
)
def test_text_is_pronounced(pronounce: Pronouncer, text: str, phones: str | None) -> None:
    if phones is None:
        endings = [word[-1] for word in split_words(pronounce(text))]
        assert endings == ["AH0", "S", "OY1", "AH0", "Z", "Z", "S"]
    else:
        assert pronounce(text) == phones.split()


@pytest.mark.parametrize(
    ("word", "phones"),
    [("skateboarder", "S K EY1 T B AO0 R D ER0"), ("shirtless", "SH ER1 T L AH0 S"), ("rollerblader", None)],
)
def test_words_that_the_dictionary_lacks_are_pronounced_by_rules(
    pronounce: Pronouncer, word: str, phones: str | None
) -> None:
    said = pronounce(word)
    assert said == phones.split() if phones else len(said) > 7


def test_rules_are_asked_once_a_word_and_only_for_what_is_unknown() -> None:
    asked: list[Sequence[str]] = []

    def transcribe(words: Sequence[str]) -> list[str]:
        asked.append(words)
        return ["blˈiːk"]

    pronounce = Pronouncer(transcribe)
    assert pronounce("a bleeq dog, a bleeq's cat, bleeq")[2:6] == ["B", "L", "IY1", "K"]
    assert asked == [["bleeq"], ["bleeq's"]]


@pytest.mark.parametrize("ipa", ["ʁˈo", ""])
def test_what_english_cannot_say_is_refused(ipa: str) -> None:
    with pytest.raises(OptionError, match="'qqq' cannot be pronounced in English"):
        Pronouncer(lambda words: [ipa])("a qqq")


@pytest.mark.parametrize("number", ["9" * 400, "1." + "3" * 400, "$" + "9" * 5000])
def test_numbers_without_end_are_refused(number: str) -> None:
    with pytest.raises(OptionError, match="too large to be pronounced"):
        spell_out(number)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"captioner\[speech\]"):
        Pronouncer(lambda words: [])
