from __future__ import annotations

from pathlib import Path

import pytest

from captioner.errors import DataError
from captioner.tokens import WordTokenizer
from training.datasets import Example
from training.predict import reference_tokens

TEXT = Example(Path("a.png"), ("A dog's ball.", "Dogs!"), "train")
TOKENS = Example(Path("b.png"), ("een hond",), "train", (("h", "O", "n", "t"),))


def test_text_is_tokenised_and_tokens_are_taken_as_they_are() -> None:
    assert reference_tokens([TEXT], WordTokenizer()) == [[["a", "dog", "'s", "ball"], ["dogs"]]]
    assert reference_tokens([TOKENS], WordTokenizer()) == [[("h", "O", "n", "t")]]


def test_words_are_not_learnt_beside_phones() -> None:
    with pytest.raises(DataError, match=r"1 of 2 images have no tokens, first a\.png; give all or none"):
        reference_tokens([TOKENS, TEXT], WordTokenizer())
