"""What is written of a caption."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.batch.texts import Shape, cut
from captioner.errors import OptionError
from captioner.results import Caption


def caption(text: str, words: str | None = None) -> Caption:
    return Caption(text, tuple(text.split()), -1.0, -0.51239, (-1.0,), np.zeros((1, 1, 1), np.float32), "tiny", words)


def test_texts_are_cut_between_words() -> None:
    text = "a dog runs on the grass"
    assert cut(text, 23) == text
    assert cut(text, 22) == "a dog runs on the"
    assert cut(text, 17) == "a dog runs on the"
    assert cut(text, 16) == "a dog runs on"


def test_what_hangs_at_the_end_goes_with_the_cut() -> None:
    assert cut("a dog, running", 8) == "a dog"
    assert cut("a dog - running", 9) == "a dog"


def test_a_first_word_that_does_not_fit_is_cut_in_two() -> None:
    assert cut("skateboarder jumps", 5) == "skate"
    assert cut(", a dog", 2) == ", "


@given(st.text(st.sampled_from("ab ,.")), st.integers(1, 12))
def test_a_cut_text_fits_and_is_a_beginning(text: str, most: int) -> None:
    found = cut(text, most)
    assert len(found) <= most
    assert text.startswith(found)
    assert found or not text


def test_a_sentence_that_is_cut_is_one_still() -> None:
    shape = Shape("", " (auto)", 20, sentence=True)
    assert shape("A dog runs.") == "A dog runs. (auto)"
    assert shape("A dog runs on the grass.") == "A dog runs. (auto)"
    assert shape("A retriever barks.") == "A retriever. (auto)"


def test_the_limit_counts_what_stands_around() -> None:
    shape = Shape("Photo: ", ".", 15)
    assert shape("a dog runs") == "Photo: a dog."
    assert len(Shape("Photo: ", ".", 18)("a dog runs")) == 18
    assert Shape("Photo: ", ".")("a dog runs") == "Photo: a dog runs."


def test_a_limit_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(OptionError, match="prefix and suffix alone take 8"):
        Shape("Photo: ", ".", 8)
    with pytest.raises(OptionError, match="raise it"):
        Shape(max_length=0)


@pytest.mark.parametrize("text", ["two\nlines", "a\ttab", "\x00", "next\x85line", "\u2028", "\udcff"])
def test_what_is_no_single_line_of_text_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="the prefix"):
        Shape(prefix=text)
    with pytest.raises(OptionError, match="the suffix"):
        Shape(suffix=text)


def test_rows_have_the_text_as_it_is_written() -> None:
    row = Shape(prefix="> ")(caption("a dog").text)
    assert Shape(prefix="> ").row(caption("a dog")) == {"text": row, "tokens": ["a", "dog"], "score": -0.5124}
    assert Shape(sentence=True).row(caption("a dog"))["text"] == "A dog."
    phones = caption("D AO1 G", words="dog")
    assert Shape(sentence=True).row(phones)["text"] == "Dog."
    assert Shape().row(phones)["text"] == "D AO1 G"
    assert Shape().row(phones)["words"] == "dog"
