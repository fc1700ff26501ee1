"""Ranking by consensus, against loops that transcribe the formula; the hypotheses are those of a scripted engine."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scripted import FIRST, Script, Tokens, run, said

from captioner import Captioner
from captioner.cli import main
from captioner.decoding import DecodingOptions
from captioner.decoding.consensus import by_consensus, similarities
from captioner.errors import OptionError
from captioner.tokens import Vocabulary

WORDS = st.integers(FIRST, FIRST + 5)  # so few that n-grams are shared and occur twice
SEQUENCES = st.lists(st.lists(WORDS, max_size=9).map(tuple), min_size=1, max_size=7)


def ngrams(tokens: Tokens, order: int) -> Counter[Tokens]:
    return Counter(tokens[start : start + order] for start in range(len(tokens) - order + 1))


def similarity(candidate: Tokens, reference: Tokens) -> float:
    """CIDEr-D (Vedantam et al. 2015, section 4) with one reference, all weights 1 and no factor of 10."""
    total = 0.0
    for order in (1, 2, 3, 4):
        ours, theirs = ngrams(candidate, order), ngrams(reference, order)
        product = sum(min(ours[ngram], theirs[ngram]) * theirs[ngram] for ngram in theirs)
        norms = [math.sqrt(sum(count**2 for count in counts.values())) for counts in (ours, theirs)]
        total += product / (norms[0] * norms[1]) if product else 0.0
    return total / 4 * math.exp(-((len(candidate) - len(reference)) ** 2) / (2 * 6.0**2))


def agreement(candidate: Tokens, candidates: Sequence[Tokens]) -> float:
    return sum(similarity(candidate, other) for other in candidates) / len(candidates)


def ranked(candidates: Sequence[Tokens]) -> list[Tokens]:
    """As :func:`by_consensus` ranks them: by agreement, then in their order."""
    return sorted(candidates, key=lambda candidate: -round(agreement(candidate, candidates), 9))


# Four ways to say one thing, and a thing apart that the engine likes better than any of them.
DOG = ((10, 11, 12, 13, 14), (10, 11, 12, 13, 15), (10, 11, 12, 16, 14), (17, 11, 12, 13, 14))
CAT = (20, 21, 22, 23, 24)
SCRIPT = {CAT: 0.3, DOG[3]: 0.2, DOG[2]: 0.19, DOG[0]: 0.16, DOG[1]: 0.15}
BY_SCORE = [CAT, DOG[3], DOG[2], DOG[0], DOG[1]]


@given(sequences=SEQUENCES)
def test_similarities_are_those_of_the_formula(sequences: list[Tokens]) -> None:
    expected = [[similarity(one, other) for other in sequences] for one in sequences]
    np.testing.assert_allclose(similarities(sequences), expected, rtol=1e-12)


@given(sequences=SEQUENCES)
def test_the_winner_agrees_most_with_all(sequences: list[Tokens]) -> None:
    winner = sequences[by_consensus(sequences)[0]]
    assert agreement(winner, sequences) >= max(agreement(one, sequences) for one in sequences) - 1e-9


@given(sequences=SEQUENCES)
def test_all_are_ranked_by_agreement(sequences: list[Tokens]) -> None:
    order = by_consensus(sequences)
    assert sorted(order) == list(range(len(sequences)))
    assert [sequences[number] for number in order] == ranked(sequences)


def test_clipping_counts_what_is_repeated_no_more_often_than_the_other_does() -> None:
    once, thrice = (5, 6), (5, 5, 5, 6)
    expected = [(1 + 1) / math.sqrt(2 * 10), (1 * 3 + 1) / math.sqrt(10 * 2)]  # of single tokens
    orders = np.array([1 / math.sqrt(5)] * 2)  # (5, 6) is one bigram of one, and one of two kinds with counts 2 and 1
    measured = similarities([thrice, once])[[0, 1], [1, 0]] * 4 / math.exp(-4 / 72)
    np.testing.assert_allclose(measured, expected + orders)


def test_tokens_of_any_size_are_told_apart() -> None:
    huge = 2**31
    apart = similarities([(4, huge), (huge, 4), (5, 4), (4, 5)])
    assert apart[0, 0] == apart[2, 2] == pytest.approx(0.5), "two orders of four"
    assert apart[0, 1] == apart[2, 3] == pytest.approx(0.25), "the same tokens, another pair"
    assert apart[0, 2] == pytest.approx(0.125)


@pytest.mark.parametrize("sequences", [[], [()], [(4,)], [(4, 5, 6)], [(), ()], [(4, 5, 6, 7), (4, 5, 6, 8)]])
def test_up_to_two_keep_their_order_where_neither_repeats_itself(sequences: list[Tokens]) -> None:
    assert by_consensus(sequences).tolist() == list(range(len(sequences)))


def test_the_empty_sequence_agrees_with_nothing() -> None:
    assert by_consensus([(), (), (4,), (5, 6)]).tolist() == [3, 2, 0, 1]


@given(sequences=SEQUENCES)
def test_what_agrees_equally_keeps_its_order(sequences: list[Tokens]) -> None:
    """Each sequence stands beside its mirror image, with tokens exchanged in pairs: both agree equally with all.

    Their similarities are the same numbers in another order, the sums of which round differently.
    """
    both = [one for tokens in sequences for one in (tokens, tuple(token ^ 1 for token in tokens))]
    place = {int(number): rank for rank, number in enumerate(by_consensus(both))}
    assert all(place[number] < place[number + 1] for number in range(0, len(both), 2))


def test_the_beam_prefers_what_most_of_it_share_to_what_is_likeliest() -> None:
    (by_score,) = run(Script(SCRIPT), beam_size=5, n_best=5)
    assert said(by_score) == BY_SCORE
    (by_agreement,) = run(Script(SCRIPT), beam_size=5, n_best=5, rank="consensus")
    assert said(by_agreement) == ranked(BY_SCORE)
    assert by_agreement[0].tokens == DOG[0]
    assert by_agreement[-1].tokens == CAT


@pytest.mark.parametrize("n_best", [1, 2, 4])
def test_all_of_the_beam_have_a_say_however_few_are_returned(n_best: int) -> None:
    (found,) = run(Script(SCRIPT), beam_size=5, n_best=n_best, rank="consensus")
    assert said(found) == ranked(BY_SCORE)[:n_best]


def test_a_single_hypothesis_is_its_own_consensus() -> None:
    (greedy,) = run(Script(SCRIPT), beam_size=1)
    (found,) = run(Script(SCRIPT), beam_size=1, rank="consensus")
    assert said(found) == said(greedy) == [DOG[0]]


def test_hypotheses_stay_what_they_were() -> None:
    (by_score,) = run(Script(SCRIPT), beam_size=5, n_best=5, length_penalty=0.7)
    (by_agreement,) = run(Script(SCRIPT), beam_size=5, n_best=5, length_penalty=0.7, rank="consensus")
    before = {one.tokens: one for one in by_score}
    for one in by_agreement:
        same = before[one.tokens]
        assert (one.score, one.log_probability, one.ended) == (same.score, same.log_probability, same.ended)
        assert one.log_probability == pytest.approx(math.log(SCRIPT[one.tokens]), abs=1e-5)
        assert one.score == pytest.approx(one.log_probability / 6**0.7)
        assert one.token_log_probabilities == same.token_log_probabilities
        np.testing.assert_array_equal(one.weights[:, 0], [Vocabulary.bos, *one.tokens[:-1]])
    scores = [one.score for one in by_agreement]
    assert scores != sorted(scores, reverse=True)


def test_what_did_not_end_has_no_say_and_comes_last() -> None:
    longer = {(*tokens, 30, 31): 1.0 for tokens in DOG}  # likelier, all alike, and cut off at five steps
    short = {(40, 41, 42): 0.3, (43, 41, 42): 0.2, (43, 44, 42): 0.1}
    beam = {"beam_size": 7, "n_best": 7, "max_length": 5}
    (by_score,), (found,) = (run(Script(longer | short), **beam, rank=rank) for rank in ("score", "consensus"))
    assert [one.ended for one in found] == [True] * 3 + [False] * 4
    assert said(found[:3]) == ranked(list(short)) == [(43, 41, 42), (40, 41, 42), (43, 44, 42)]
    assert said(found[3:]) == said(by_score[3:])


def test_where_nothing_ended_the_scores_rank() -> None:
    beam = {"beam_size": 5, "n_best": 3, "max_length": 5}
    (by_score,), (found,) = (run(Script(SCRIPT), **beam, rank=rank) for rank in ("score", "consensus"))
    assert said(found) == said(by_score) == BY_SCORE[:3]
    assert not any(one.ended for one in found)


def test_each_image_of_a_batch_is_ranked_by_itself() -> None:
    images = [SCRIPT, {CAT: 1.0}, {(4,): 0.6, (): 0.4}, {tokens[::-1]: share for tokens, share in SCRIPT.items()}]
    together = run(Script(*images), beam_size=5, n_best=5, rank="consensus")
    assert [len(found) for found in together] == [5, 1, 2, 5]
    for image, found in zip(images, together, strict=True):
        (alone,) = run(Script(image), beam_size=5, n_best=5, rank="consensus")
        assert said(found) == said(alone)
    assert together[0][0].tokens == DOG[0]
    assert together[3][0].tokens == DOG[0][::-1]


def test_samples_are_ranked_the_same_way() -> None:
    options = {"method": "sample", "n_best": 12, "seed": 3}
    (by_score,), (found,) = (run(Script(SCRIPT), **options, rank=rank) for rank in ("score", "consensus"))
    assert said(found) == ranked(said(by_score)) != said(by_score)
    assert len(set(said(found))) < 12, "what was drawn several times has as many votes"


@pytest.mark.parametrize("wrong", ["magic", "", None, 1, ["score"]])
def test_an_unknown_rank_is_refused_with_the_known_ones(wrong: Any) -> None:
    with pytest.raises(OptionError, match="rank must be score, cider or consensus, not"):
        DecodingOptions(rank=wrong)


def test_scores_rank_unless_told_otherwise() -> None:
    assert DecodingOptions().rank == "score"
    assert DecodingOptions.from_dict(json.loads('{"rank": "consensus"}')).to_dict()["rank"] == "consensus"


@pytest.fixture
def photo(picture: Image.Image, tmp_path: Path) -> Path:
    """A picture for which the tiny model ends several captions, whose agreement orders them otherwise."""
    picture.point(lambda value: 255 - value).save(tmp_path / "photo.jpg", quality=95)
    return tmp_path / "photo.jpg"


def test_a_captioner_takes_it_as_an_option(tiny_captioner: Captioner, photo: Path) -> None:
    by_score = tiny_captioner.candidates(photo, n_best=8)
    found = tiny_captioner.candidates(photo, n_best=8, rank="consensus")
    numbers = {token: number for number, token in enumerate(tiny_captioner.info.vocabulary.tokens)}
    sequences = [tuple(numbers[token] for token in one.tokens) for one in by_score]
    order = by_consensus(sequences).tolist()
    assert order != sorted(order), "another order, else the test shows nothing"
    assert [one.tokens for one in found] == [by_score[number].tokens for number in order]
    assert tiny_captioner(photo, beam_size=8, rank="consensus").tokens == found[0].tokens


def test_the_command_takes_it(
    tiny_captioner: Captioner, tiny_model_dir: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["caption", "--model", str(tiny_model_dir), "--device", "cpu", str(photo), "--n-best", "8"]
    assert main([*command, "--rank", "consensus"]) == 0
    expected = tiny_captioner.candidates(photo, n_best=8, rank="consensus")
    assert capsys.readouterr().out.splitlines() == [f"{photo}\t{one.text}" for one in expected]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() != [f"{photo}\t{one.text}" for one in expected]
    assert main([*command, "--rank", "votes"]) == 2
    assert "rank must be score, cider or consensus, not 'votes'" in capsys.readouterr().err
