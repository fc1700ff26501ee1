from __future__ import annotations

import itertools
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.chunks import MAX_BYTES, MAX_PHONES, PAUSE, mnemonics, phone_chunks, read_back, text_chunks
from captioner.phones import PHONES, split_words
from captioner.prosody import running_speech


@pytest.mark.parametrize(
    ("word", "spelt"),
    [
        ("S K EY1 T B AO2 R D ER0", "s k 'eI t b ,o@ d 3"),
        ("AH1 P", "'V p"),
        ("AH0", "a#"),
        ("DH AH0", "D a#"),
        ("AH0 R AY1 V AH0 L", "@2 r 'aI v @ l"),
        ("B ER1 D IY0", "b '3: d i"),
        ("M EH1 R IY0", "m 'E r i"),
        ("R AA1 R", "r 'A@"),
        ("SH", "S"),
    ],
)
def test_words_are_spelt_as_voices_say_them(word: str, spelt: str) -> None:
    assert mnemonics(word.split()) == spelt.split()


def test_what_was_spoken_is_read_back_as_what_was_asked() -> None:
    assert read_back("D a# k 'A@ r- I z b '3: d i ; ,o@ t# _:".split()) == (
        "D @ k 'A: r I z b '3: d i: ,O: r t _:".split()
    )


@given(st.lists(st.sampled_from([*PHONES, "IH1", "|", "|"]), max_size=600))
def test_chunks_of_phones_hold_all_and_stay_below_the_limits(tokens: list[str]) -> None:
    phones: list[str] = []
    for chunk in phone_chunks(tokens):
        assert len(chunk.encode()) <= MAX_BYTES
        assert chunk.startswith("[[")
        assert chunk.endswith("]]")
        words = [word.split("|") for word in chunk[2:-2].split(" ")]
        assert all(0 < len(word) <= MAX_PHONES for word in words)
        phones += [phone for word in words for phone in word if phone != PAUSE]
    assert phones == [phone for word in running_speech(list(split_words(tokens))) for phone in mnemonics(word)]


def test_a_caption_is_one_chunk_and_more_is_cut_between_phrases() -> None:
    phrase = "AH0 | M AE1 N | R AH1 N Z | P AE1 S T | IH0 T | AH0 N D | ".split()
    assert len(list(phone_chunks(phrase * 3))) == 1
    chunks = list(phone_chunks(phrase * 30))
    assert len(chunks) > 2
    assert all(chunk.startswith("[[@|n|d ") for chunk in chunks[1:])


@given(st.text(max_size=3000), st.integers(1, 700))
def test_chunks_of_text_hold_all_and_stay_below_the_limits(text: str, size: int) -> None:
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    for given_text in (text, parts):
        chunks = list(text_chunks(given_text))
        assert all(0 < len(chunk.encode()) <= MAX_BYTES for chunk in chunks)
        readable = [character for character in text if not character.isspace() and category(character)[0] != "C"]
        assert "".join("".join(chunks).split()) == "".join(readable)


@given(st.lists(st.sampled_from(["a", "dog.", "runs", "\n", "wonderfully;"]), max_size=400), st.integers(1, 50))
def test_where_text_is_parted_does_not_matter(words: list[str], size: int) -> None:
    text = " ".join(words)
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    assert list(text_chunks(parts)) == list(text_chunks(text))


def test_text_without_an_end_is_cut_as_it_comes() -> None:
    for part in (" runs and", "runs and "):
        endless = text_chunks(itertools.repeat(part))
        chunks = [next(endless) for _ in range(10)]
        assert {word for chunk in chunks for word in chunk.split()} == {"runs", "and"}
        assert all(MAX_BYTES - 20 < len(chunk) <= MAX_BYTES for chunk in chunks)
    assert list(text_chunks([" "] * 5000)) == []
