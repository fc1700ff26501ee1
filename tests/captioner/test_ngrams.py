from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import ModelError
from captioner.ngrams import DISCOUNT, END, START, NgramModel

WORDS = ["a", "b", "c", "d"]
SENTENCES = st.lists(st.lists(st.sampled_from(WORDS), max_size=6), min_size=1, max_size=12)


def probability(model: NgramModel, word: str, *history: str) -> float:
    return math.exp(model.log_probability(word, history))


def test_counts_are_discounted_and_the_rest_goes_to_shorter_histories() -> None:
    model = NgramModel.learn([["a", "b"], ["a", "b"], ["a", "c"]], min_count=1)
    left = 1 - DISCOUNT
    # Nine words followed something: a three times, b two, c one, END three.
    uniform, rest = 1 / 4, 4 * DISCOUNT / 9
    b = (2 - DISCOUNT) / 9 + rest * uniform
    b_after_a = (2 - DISCOUNT) / 3 + (2 * DISCOUNT / 3) * b
    assert probability(model, "b") == pytest.approx(b)
    assert probability(model, "b", "a") == pytest.approx(b_after_a)
    assert probability(model, "b", START, "a") == pytest.approx((2 - DISCOUNT) / 3 + (2 * DISCOUNT / 3) * b_after_a)
    assert probability(model, END, "a", "c") == pytest.approx(left + DISCOUNT * probability(model, END, "c"))


@given(
    sentences=SENTENCES, history=st.lists(st.sampled_from([*WORDS, "unheard"]), max_size=2), min_count=st.integers(1, 3)
)
def test_probabilities_of_all_successors_sum_to_one(
    sentences: list[list[str]], history: list[str], min_count: int
) -> None:
    model = NgramModel.learn(sentences, min_count=min_count)
    words = {word for (word,) in (ngram for ngram in model.counts if len(ngram) == 1)} - {START}
    total = sum(probability(model, word, *history) for word in words)
    assert total == pytest.approx(1)


def test_a_history_never_heard_counts_for_nothing() -> None:
    model = NgramModel.learn([["a", "b"], ["c", "b"]])
    assert probability(model, "b", "unheard") == probability(model, "b")
    assert probability(model, "b", "unheard", "a") == probability(model, "b", "a")


def test_rare_ngrams_are_pruned_and_words_are_not() -> None:
    model = NgramModel.learn([["a", "b"], ["a", "c"]])
    assert {ngram for ngram in model.counts if len(ngram) > 1} == {(START, "a")}
    assert {ngram for ngram in model.counts if len(ngram) == 1} == {(START,), ("a",), ("b",), ("c",), (END,)}


@pytest.mark.parametrize(
    ("counts", "message"),
    [({}, "counted no words"), ({(START,): 3}, "counted no words"), ({("a",): 1, ("b", "a"): 1}, "'b a' but not 'b'")],
)
def test_counts_that_are_no_language_raise(counts: dict[tuple[str, ...], int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        NgramModel(counts)
