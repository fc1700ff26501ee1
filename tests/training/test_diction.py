from __future__ import annotations

import pytest

from captioner.errors import DataError
from captioner.tokens import WordTokenizer
from training.diction import DANGLING, describe_diction, diction


def figures(*captions: str) -> dict[str, float]:
    return diction([caption.split() for caption in captions])


def test_figures_by_hand() -> None:
    said = figures(
        "a dog runs on a", "two dogs run", "a dog runs and a dog sits", "two dogs run", "", "the the the dog"
    )
    assert said == {
        "captions": 6,
        "dangling": 1,
        "dangling_share": pytest.approx(1 / 6),
        "length": pytest.approx((5 + 3 + 7 + 3 + 0 + 4) / 6),
        "words": len({"a", "dog", "runs", "on", "two", "dogs", "run", "and", "sits", "the"}),
        "different": 5,
        "repeated_bigrams": 2,  # "a dog", and "the the", which overlaps with itself
        "repeated_trigrams": 0,
        "doubled_words": 2,
    }


@pytest.mark.parametrize(
    "caption",
    [
        *("a dog jumps over a", "a man on the", "a man in", "a dog and", "a dog while", "two boys are", "the man 's"),
        *("a woman with his", "a group of", "a man who", "a dog on"),
    ],
)
def test_captions_that_break_off_are_counted(caption: str) -> None:
    assert figures(caption)["dangling"] == 1


@pytest.mark.parametrize(
    "caption",
    [
        *("a boy looks up", "a man drives by", "a diver swims below", "two dogs run around", "a dog runs to her"),
        *("a girl sits outside", "people watch from behind", "a boy and another", "a ball", ""),
    ],
)
def test_captions_that_end_are_not_counted(caption: str) -> None:
    assert figures(caption)["dangling"] == 0


def test_dangling_words_are_tokens_that_the_tokenizer_gives() -> None:
    tokenize = WordTokenizer().tokenize
    for word in DANGLING:
        assert tokenize(f"A man {word}")[2:] == [word]


@pytest.mark.parametrize(
    ("caption", "bigrams", "trigrams"),
    [
        ("a b c a b d", 1, 0),
        ("a b c a b c", 1, 1),
        ("a a", 0, 0),
        ("a a a", 1, 0),
        ("a a a a", 1, 1),
        ("a b", 0, 0),
        ("a b a b a b", 1, 1),
    ],
)
def test_a_caption_that_repeats_counts_once(caption: str, bigrams: int, trigrams: int) -> None:
    said = figures(caption, "a dog")
    assert (said["repeated_bigrams"], said["repeated_trigrams"]) == (bigrams, trigrams)


def test_wording_in_one_line() -> None:
    line = describe_diction(figures("a dog runs on a", "two dogs run"))
    assert line == (
        "4.0 words a caption, 7 different; 2 of 2 captions different, 1 end dangling, 0 repeat a bigram, 0 a trigram; "
        "0 words doubled"
    )


def test_no_captions_are_refused() -> None:
    with pytest.raises(DataError, match="there are no captions"):
        diction([])
