from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from captioner.errors import OptionError
from captioner.phones import (
    BOUNDARY,
    PHONES,
    from_ipa,
    parse_phones,
    split_stress,
    split_words,
    to_ipa,
    without_stress,
)

CONSONANTS = [name for name, phone in PHONES.items() if not phone.vowel]
VOWELS = [name for name, phone in PHONES.items() if phone.vowel]
STRESSED = st.builds("{}{}".format, st.sampled_from(VOWELS), st.sampled_from("012"))
WORDS = st.lists(st.lists(st.sampled_from(CONSONANTS) | STRESSED, min_size=1, max_size=9), min_size=1, max_size=5)


def joined(words: list[list[str]]) -> list[str]:
    return [token for word in words for token in (*word, BOUNDARY)][:-1]


def test_the_phone_set_is_that_of_the_pronouncing_dictionary() -> None:
    assert (len(VOWELS), len(CONSONANTS)) == (15, 24)
    assert len({phone.ipa for phone in PHONES.values()}) == len({phone.espeak for phone in PHONES.values()}) == 39


def test_text_becomes_tokens() -> None:
    assert parse_phones(" dh ah0 |\nD AO1 g ") == ["DH", "AH0", "|", "D", "AO1", "G"]


@pytest.mark.parametrize("text", ["DOG", "D AO3", "D1", "D AO1G", "1", "D ɔ", "[[a]]"])
def test_what_is_no_phone_is_refused_by_name(text: str) -> None:
    wrong = next(token for token in text.upper().split() if token not in ("D", "AO1"))
    with pytest.raises(OptionError, match="is no ARPAbet phone") as caught:
        parse_phones(text)
    assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("text", ["", "  ", "|", "| |"])
def test_no_phones_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="no phones"):
        parse_phones(text)


def test_stress_is_split_off_and_turns_ah_into_a_schwa() -> None:
    assert [(phone.arpabet, phone.ipa, stress) for phone, stress in map(split_stress, ("AE1", "AH", "AH0", "Z"))] == [
        ("AE", "æ", "1"),
        ("AH", "ʌ", ""),
        ("AH", "ə", "0"),
        ("Z", "z", ""),
    ]
    assert without_stress(["DH", "AH0", "|", "D", "AO1", "G"]) == ["DH", "AH", "|", "D", "AO", "G"]


def test_words_are_what_stands_between_boundaries() -> None:
    assert list(split_words(["|", "DH", "AH", "|", "|", "D", "AO", "G", "|"])) == [["DH", "AH"], ["D", "AO", "G"]]


def test_words_are_parted_by_boundaries_and_silence() -> None:
    tokens = "SIL AH0 | D SPN AO1 G SIL | R AH1 N SPN SIL SPN".split()
    assert list(split_words(tokens)) == [["AH0"], ["D", "AO1", "G"], ["R", "AH1", "N"]]


def test_ipa_of_a_sentence() -> None:
    assert to_ipa(parse_phones("DH AH0 | W AO1 T ER0 | S K EY1 T B AO2 R D ER0 | JH AH1 M P S")) == (
        "ðə wˈɔtɝ skˈeɪtbˌɔɹdɝ dʒˈʌmps"
    )


def alike(ipa: str) -> str:
    """One spelling for what is read as one: a bare AH, and AH before R and UH, which are read as ER and OW."""
    return ipa.replace("ʌ", "ə").replace("əɹ", "ɝ").replace("əʊ", "oʊ")


@given(WORDS)
@example([["AH0", "R"], ["AH0", "UH0"]])
def test_ipa_and_back_keeps_every_stressed_phone(words: list[list[str]]) -> None:
    # Without a stress mark in the word, its vowels come back bare; two phones may write a third: T SH is CH.
    spelt = to_ipa(joined(words))
    back = from_ipa(spelt)
    assert alike(to_ipa(back)) == alike(spelt)
    for word, again in zip(words, split_words(back), strict=True):
        if len(word) == len(again) and any(mark in to_ipa(word) for mark in "ˈˌ"):
            assert again == word


@pytest.mark.parametrize(
    ("ipa", "phones"),
    [
        ("ɐ blˈæk dˈɔːɡ", "AH | B L AE1 K | D AO1 G"),  # espeak-ng's spelling
        ("tʃˈeɪs", "CH EY1 S"),
        ("t͡ʃˈɪldɹən", "CH IH1 L D R AH0 N"),
        ("wˈɔːɾɚ", "W AO1 T ER0"),
        ("bˈɑːtl̩", "B AA1 T AH0 L"),
        ("ðə", "DH AH"),
        ("mˈɪʔn̩d", "M IH1 T AH0 N D"),
        ("kˈæʔˌn̩ɪp", "K AE1 T AH2 N IH0 P"),
        ("bˈɜːɹd", "B ER1 D"),
        ("lˈɑːx kɹwˈɑ̃t", "L AA1 K | K R W AA1 T"),
    ],
)
def test_transcriptions_of_others_are_read(ipa: str, phones: str) -> None:
    assert from_ipa(ipa) == phones.split()


def test_a_symbol_of_another_language_is_refused() -> None:
    with pytest.raises(OptionError, match=r"'ʁ' in 'ʁaʊ' is no IPA symbol"):
        from_ipa("ʁaʊ")
