from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.dictionary import pronunciations, stresses
from captioner.errors import DependencyError, OptionError
from captioner.phones import PHONES, split_words, without_stress
from captioner.prosody import phrase_starts, running_speech, weaken


def run(text: str) -> str:
    return " | ".join(" ".join(word) for word in running_speech(list(split_words(text.split()))))


@pytest.mark.parametrize(
    ("bare", "stressed"),
    [
        ("AH | B ER TH D EY | P AA R T IY", "AH0 | B ER1 TH D EY2 | P AA1 R T IY0"),  # by the dictionary
        ("AH B AW T | AH | G IH T AA R", "AH0 B AW1 T | AH0 | G IH0 T AA1 R"),
        ("B AH T ER | AH V | DH AH | S AH N", "B AH1 T ER0 | AH0 V | DH AH0 | S AH1 N"),
        ("HH IY | IH Z | AA N | AH P | T UW | S T EH P S", "HH IY0 | IH0 Z | AA2 N | AH2 P | T UW1 | S T EH1 P S"),
        ("SH IY | L UH K S | AA N", "SH IY0 | L UH1 K S | AA1 N"),  # the last word is not weak
        ("Z AH B L OW K AH | Z AH Z | Z AH | S", "Z AH0 B L OW1 K AH0 | Z AH1 Z | Z AH0 | S"),  # unknown words
        ("AH1 V | IH1 Z | K AE T", "AH1 V | IH1 Z | K AE1 T"),  # what is told stays
        ("B AH T ER0 | AE T", "B AH T ER0 | AE1 T"),
    ],
)
def test_stress_is_restored(bare: str, stressed: str) -> None:
    assert run(bare) == stressed


def test_without_boundaries_the_stress_alternates() -> None:
    said = run("AH M AE N IH N AH R EH D SH ER T R AH N Z TH R UW DH AH G R AE S").split()
    vowels = [token for token in said if token[-1].isdigit()]
    pattern = "".join(token[-1] for token in vowels)
    assert pattern.count("1") > 2
    assert "11" not in pattern
    assert all(token[-1] == "0" for token in vowels if token.startswith("AH"))


@given(st.lists(st.sampled_from([*PHONES, "AE1", "AH0", "|"]), max_size=60))
def test_phones_stay_and_every_vowel_is_told(tokens: list[str]) -> None:
    words = list(split_words(tokens))
    said = running_speech(words)
    assert [without_stress(word) for word in said] == [without_stress(word) for word in words]
    for before, after in zip(words, said, strict=True):
        if any(token[-1].isdigit() for token in before):
            assert after == before
        else:
            assert all(token[-1].isdigit() == PHONES[token.rstrip("012")].vowel for token in after)


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("AH | M AE N | IH N | AH | R EH D | HH AE T | AE N D | AH | B OY | IH N | AH | P UW L", [6]),
        ("AH | M AE N | AE N D | AH | B OY", []),
        ("AH | M AE N | IH N | AH | R EH D | HH AE T | R AH N Z | F AE S T | W IH DH | HH IH M", []),  # a short rest
        ("AH0 | M AE1 N | IH0 Z | W AO1 K IH0 NG | HH OW1 M | W IH1 DH | HH IH1 Z | B IH1 G | D AO1 G", [5]),
        ("T UW | B IG", None),
    ],
)
def test_pauses_stand_between_long_phrases(text: str, starts: list[int] | None) -> None:
    words = list(split_words(text.split()))
    if starts is None:
        with pytest.raises(OptionError, match="no ARPAbet phone"):
            running_speech(words)
    else:
        assert phrase_starts(words) == starts


def test_function_words_are_weakened_by_name() -> None:
    assert weaken("to", ["T", "UW1"]) == ("T", "UW0")
    assert weaken("into", ["IH1", "N", "T", "UW0"]) == ("IH2", "N", "T", "UW0")
    assert weaken("two", ["T", "UW1"]) == ("T", "UW1")


def test_the_dictionary_is_read_as_it_stands() -> None:
    known = pronunciations()
    assert len(known) > 130_000
    assert (known["the"], known["the(2)"], known["d'artagnan"]) == ("DH AH0", "DH AH1", "D AH0 R T AE1 NG Y AH0 N")
    assert stresses()["R AH N IH NG"] == "R AH1 N IH0 NG"
    assert stresses()["B IH G IH N Z"] == "B IH0 G IH1 N Z"  # begins and its possessive outvote Biggins
    assert stresses()["K AE SH EY"] == "K AE1 SH EY0"  # cachet, not another way to say cache


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"captioner\[speech\]"):
        pronunciations.__wrapped__()
