"""What becomes of silence, noise, words and stress on the way from an alignment to tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import DataError, OptionError
from captioner.phones import BOUNDARY, PHONES
from training.alignments.intervals import Alignment, Interval
from training.alignments.symbols import NOISE, NOISES, SILENCE, SILENCES, SilencePolicy, phone_tokens


def lay_out(labels: Sequence[str]) -> tuple[Interval, ...]:
    """Labels of a second, one after the other, each on a line of its own."""
    return tuple(Interval(i, i + 1, label, i + 1) for i, label in enumerate(labels))


# The dog -- ran: silence around, a pause of two labels, and words that leave out the silence.
PHRASE = ["sil", "dh", "AH0", "d", "AO1", "g", "sp", "SIL", "r", "ae1", "N", "sil"]
WORDS = (
    Interval(1, 3, "the", 1),
    Interval(3, 6, "dog", 2),
    Interval(6, 8, "", 3),
    Interval(8, 11, "ran", 4),
)


def tokens(labels: Sequence[str], *, words: tuple[Interval, ...] = WORDS, **options: Any) -> str:
    choices = {
        name: options.pop(name) for name in ("silence", "noise", "shortest_pause", "silences") if name in options
    }
    alignment = Alignment("u", Path("u.TextGrid"), lay_out(labels), words)
    return " ".join(phone_tokens(alignment, SilencePolicy(**choices), **options))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "DH AH D AO G R AE N"),
        ({"stress": True}, "DH AH0 D AO1 G R AE1 N"),
        ({"boundaries": True}, "DH AH | D AO G | R AE N"),
        ({"silence": "boundary"}, "DH AH D AO G | R AE N"),
        ({"silence": "boundary", "boundaries": True}, "DH AH | D AO G | R AE N"),
        ({"silence": "keep"}, "SIL DH AH D AO G SIL R AE N SIL"),
        ({"silence": "keep", "boundaries": True}, "SIL DH AH | D AO G SIL R AE N SIL"),
        ({"silence": "keep", "shortest_pause": 1.5}, "DH AH D AO G SIL R AE N"),
        ({"silence": "boundary", "shortest_pause": 2.5}, "DH AH D AO G R AE N"),
        ({"phone_set": "any"}, "dh AH0 d AO1 g r ae1 N"),
    ],
)
def test_the_policy_decides(options: dict[str, Any], expected: str) -> None:
    assert tokens(PHRASE, **options) == expected


def test_a_gap_is_silence() -> None:
    alignment = Alignment(
        "u", Path("a.ctm"), (Interval(0, 1, "AH", 1), Interval(1.5, 2, "B", 2), Interval(2.01, 3, "D", 3))
    )
    assert phone_tokens(alignment, SilencePolicy(silence="keep")) == ("AH", "SIL", "B", "D")


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        (["spn", "AH", "lau", "B", "<unk>"], {}, "AH B"),
        (["spn", "AH", "lau", "B", "<unk>"], {"noise": "keep"}, "SPN AH SPN B SPN"),
        (["AH", "lau", "B"], {"silence": "boundary"}, "AH B"),  # laughter is no pause
        (["AH", "sil", "brth", "", "B"], {"silence": "keep", "shortest_pause": 1.5}, "AH SIL B"),
        (["AH", "sil", "brth", "B"], {"silence": "keep", "noise": "keep"}, "AH SIL SPN B"),
    ],
)
def test_noise(labels: list[str], options: dict[str, Any], expected: str) -> None:
    assert tokens(labels, words=(), **options) == expected


def test_noise_may_be_refused() -> None:
    with pytest.raises(DataError, match=r"u\.TextGrid, line 2: 'Lau' is noise"):
        tokens(["AH", "Lau"], noise="refuse")


def test_further_symbols_may_count_as_silence() -> None:
    assert tokens(["AH", "xx", "B"], silences=SILENCES | {"xx"}, silence="boundary") == "AH | B"


def test_what_lies_between_words_is_apart_from_both() -> None:
    words = (Interval(0, 1, "a", 1), Interval(2, 3, "b", 2))
    assert tokens(["AH", "spn", "B"], words=words, boundaries=True, noise="keep") == "AH | SPN | B"


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["AH", "ax"], {}, "line 2: 'AX' is no ARPAbet phone.*--phone-set any keeps"),
        (["AH", "B1"], {}, "line 2: 'B1' is no ARPAbet phone"),
        (["AH", "|"], {"phone_set": "any"}, r"line 2: a phone cannot be called '\|'"),
        (["AH", "<pad>"], {"phone_set": "any"}, "line 2: a phone cannot be called '<pad>'"),
        (["sil", "spn"], {"silence": "keep", "noise": "keep"}, "has no phones for u"),
        ([], {}, "has no phones for u"),
        (["AH"], {"boundaries": True, "words": ()}, "does not tell where the words of u begin and end"),
    ],
)
def test_what_cannot_be_tokens(labels: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"u\.TextGrid.*{message}"):
        tokens(labels, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"silence": "refuse"},
        {"noise": "boundary"},
        {"shortest_pause": 0.0},
        {"shortest_pause": float("nan")},
        {"phone_set": "timit"},
        {"phone_set": "any", "stress": True},
    ],
)
def test_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        tokens(["AH"], **options)


def test_no_phone_counts_as_silence_or_noise() -> None:
    symbols = SILENCES | NOISES
    assert not SILENCES & NOISES
    assert not symbols & {phone.lower() for phone in PHONES}
    assert all(symbol == symbol.lower().strip() for symbol in symbols)
    assert {SILENCE.lower(), NOISE.lower()} <= symbols, "else a phone could be called so"


@given(
    st.lists(st.sampled_from([*PHONES, "sil", "", "spn"]), max_size=12).map(lambda labels: ["AH", *labels]),
    st.sampled_from(["drop", "boundary", "keep"]),
    st.sampled_from(["drop", "keep"]),
    st.booleans(),
)
def test_phones_stay_and_separators_stand_between(
    labels: list[str], silence: str, noise: str, boundaries: bool
) -> None:
    words = tuple(one for one in lay_out(labels) if one.label in PHONES)  # each phone a word
    found = tokens(labels, words=words, silence=silence, noise=noise, boundaries=boundaries).split()
    assert [token for token in found if token in PHONES] == [label for label in labels if label in PHONES]
    separators = (BOUNDARY, SILENCE)
    assert not any({one, other} <= set(separators) for one, other in pairwise(found))
    assert BOUNDARY not in (found[0], found[-1])
    assert (SILENCE in found) <= (silence == "keep")
    assert found.count(NOISE) == (labels.count("spn") if noise == "keep" else 0)
