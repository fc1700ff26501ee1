"""Expected CIDEr, against a transcription of the formula; how it ranks what a scripted engine says."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from installed import needs_torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from scripted import FIRST, Script, Tokens, run, said

import captioner
from captioner.checkpoint import ModelInfo
from captioner.decoding import DecodingOptions
from captioner.decoding.expectation import EXPECTATION_NAME, SHARE, Expectation
from captioner.decoding.tfidf import TfIdf
from captioner.errors import ModelError, OptionError
from captioner.tokens import Vocabulary

UNSEEN = 3.0
FEATURES = 10  # as many values as the tiny model has
WORDS = st.integers(FIRST, FIRST + 5)
SEQUENCES = st.lists(st.lists(WORDS, max_size=9).map(tuple), min_size=1, max_size=5)


def make_expectation(ngrams: list[Tokens], *, seed: int = 0, features: int = FEATURES) -> Expectation:
    random = np.random.default_rng(seed)
    numbers = np.full((len(ngrams), 4), Vocabulary.pad, dtype=np.int32)
    for row, ngram in zip(numbers, ngrams, strict=True):
        row[: len(ngram)] = ngram
    weight = random.normal(size=(len(ngrams), features)).astype(np.float16)
    idf, bias = (random.uniform(0.5, 2.5, len(ngrams)).astype(np.float32) for _ in range(2))
    return Expectation(numbers, idf, weight, bias, UNSEEN)


def all_ngrams(*sequences: Tokens) -> list[Tokens]:
    return sorted({s[i : i + n] for s in sequences for n in (1, 2, 3, 4) for i in range(len(s) - n + 1)})


def transcribed(expectation: Expectation, known: list[Tokens], summary: np.ndarray[Any, Any], tokens: Tokens) -> float:
    """10 / 4 times the sum over the orders of g(c) · E[g(r) / |g(r)|] / |g(c)|, g the TF-IDF vector of one order."""
    expected = expectation.weight.astype(np.float64) @ summary + expectation.bias
    total = 0.0
    for order in (1, 2, 3, 4):
        counts = Counter(tokens[start : start + order] for start in range(len(tokens) - order + 1))
        idf = {ngram: expectation.idf[known.index(ngram)] if ngram in known else UNSEEN for ngram in counts}
        norm = math.sqrt(sum((count * idf[ngram]) ** 2 for ngram, count in counts.items()))
        total += sum(n * idf[one] * expected[known.index(one)] / norm for one, n in counts.items() if one in known)
    return 10 / 4 * total


@given(sequences=SEQUENCES, seed=st.integers(0, 9))
def test_it_is_that_of_the_formula(sequences: list[Tokens], seed: int) -> None:
    known = all_ngrams(*sequences)[::2] or [(FIRST,)]
    expectation = make_expectation(known, seed=seed)
    summary = np.random.default_rng(seed).normal(size=FEATURES).astype(np.float32)
    expected = [transcribed(expectation, known, summary, tokens) for tokens in sequences]
    np.testing.assert_allclose(expectation.expect(summary, sequences), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sequences", [[], [()], [(99,), ()]])
def test_of_what_it_does_not_know_it_expects_nothing(sequences: list[Tokens]) -> None:
    expectation = make_expectation([(FIRST,)])
    np.testing.assert_array_equal(expectation.expect(np.ones(FEATURES, np.float32), sequences), [0] * len(sequences))


def test_words_that_no_image_is_rid_of_weigh_nothing() -> None:
    vector = TfIdf({(4,): 0.0, (5,): 2.0}, unseen=1.0)((4, 5))
    assert vector.norms == [2.0, 1.0, 0.0, 0.0]
    assert vector.unit() == {(5,): 1.0, (4, 5): 1.0}


def test_a_round_trip_through_its_file_changes_nothing(tmp_path: Path) -> None:
    expectation = make_expectation([(5,), (5, 6), (5, 6, 7, 8)])
    expectation.save(tmp_path)
    loaded = Expectation.load(tmp_path)
    assert loaded is not None
    for name in ("ngrams", "idf", "weight", "bias"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(expectation, name))
    summary = np.ones(FEATURES, np.float32)
    spoken = [(5, 6, 7, 8), (9, 5), (9, 10)]
    np.testing.assert_array_equal(loaded.expect(summary, spoken), expectation.expect(summary, spoken))
    assert [path.name for path in tmp_path.iterdir()] == [EXPECTATION_NAME]


def test_a_model_without_one_has_none(tmp_path: Path) -> None:
    assert Expectation.load(tmp_path) is None


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / EXPECTATION_NAME
    path.write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"cannot read .*expectation\.safetensors"):
        Expectation.load(tmp_path)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("bias", np.zeros(1, np.float32)),
        ("idf", np.float32(1.0)),
        ("idf", None),
        ("weight", np.full((2, FEATURES), np.nan, np.float16)),
        ("weight", np.zeros((2, FEATURES), np.bool_)),
        ("ngrams", np.zeros((2, 4), np.float32)),
        ("ngrams", np.zeros((2, 7), np.int32)),
        ("more", np.zeros(1, np.float32)),
    ],
)
def test_a_file_of_something_else_is_told(part: str, value: Any, tmp_path: Path) -> None:
    make_expectation([(5,), (6,)]).save(tmp_path)
    parts = load_file(tmp_path / EXPECTATION_NAME) | {part: value}
    kept = {name: np.asarray(held) for name, held in parts.items() if held is not None}
    save_file(kept, tmp_path / EXPECTATION_NAME)
    with pytest.raises(ModelError, match="is no expectation of n-grams: fit it again"):
        Expectation.load(tmp_path)


def test_numbers_that_numpy_lacks_are_told(tmp_path: Path) -> None:
    header = json.dumps({"weight": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / EXPECTATION_NAME).write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ModelError, match=r"cannot read|is no expectation"):  # the latter where ml_dtypes is loaded
        Expectation.load(tmp_path)


# Three things to say, the likeliest first; the expectation likes the last best.
LIKELY, LESS, LEAST = (10, 11, 12), (13, 14), (15, 16, 17, 18)
SCRIPT = {LIKELY: 0.6, LESS: 0.3, LEAST: 0.1}


class Taste(Expectation):
    """Expects of each sequence what it is told."""

    def __init__(self, points: dict[Tokens, float]) -> None:
        super().__init__(*(np.zeros(shape, np.float32) for shape in ((1, 4), 1, (1, 1), 1)), 0.0)
        self.points = points

    def expect(self, summary: Any, sequences: Any) -> Any:
        return np.array([self.points.get(tuple(tokens), 0.0) for tokens in sequences], dtype=np.float32)


def judged(points: dict[Tokens, float], **options: Any) -> list[Tokens]:
    judge = Taste(points).judge(np.zeros(1, np.float32))
    (found,) = run(Script(SCRIPT), judges=[judge], rank="cider", **options)
    return said(found)


def test_what_is_expected_to_please_comes_first() -> None:
    assert judged({LEAST: 1.0, LIKELY: -1.0}, beam_size=3, n_best=3) == [LEAST, LESS, LIKELY]


def test_it_is_weighed_against_the_score() -> None:
    margin = math.log(0.6 / 0.3) / SHARE  # scores are log-probabilities here: no length penalty
    assert judged({LESS: margin * 0.99}, beam_size=3)[0] == LIKELY
    assert judged({LESS: margin * 1.01}, beam_size=3)[0] == LESS


def test_what_it_likes_equally_keeps_the_order_of_the_scores() -> None:
    assert judged({}, beam_size=3, n_best=3) == [LIKELY, LESS, LEAST]


def test_what_was_cut_off_stays_behind_what_ended() -> None:
    assert judged({LIKELY[:3]: 9.0}, beam_size=3, n_best=3, max_length=3)[0] == LESS


def test_it_chooses_among_more_than_the_beam_holds() -> None:
    """A beam of two meets three ends: one is not among the two likeliest of its step, and is set aside all the same."""
    script = Script({(10,): 0.5, (10, 11): 0.25, (12, 13): 0.15, (12,): 0.1})
    options = {"beam_size": 2, "n_best": 2}
    (by_score,) = run(script, **options)
    assert (12,) not in said(by_score)
    judge = Taste({(12,): 9.0}).judge(np.zeros(1, np.float32))
    (found,) = run(script, judges=[judge], rank="cider", **options)
    assert said(found)[0] == (12,)


def test_a_beam_of_one_stays_greedy() -> None:
    script = Script({(10,): 0.4, (10, 11): 0.6})
    (greedy,) = run(script, beam_size=1)
    (found,) = run(script, judges=[Taste({(10,): 9.0}).judge(np.zeros(1, np.float32))], rank="cider", beam_size=1)
    assert said(found) == said(greedy) == [(10, 11)]


def test_samples_are_judged_too() -> None:
    judge = Taste({LEAST: 9.0}).judge(np.zeros(1, np.float32))
    (found,) = run(Script(SCRIPT), judges=[judge], rank="cider", method="sample", n_best=40, seed=1)
    first = said(found).index(LIKELY)
    assert said(found)[0] == LEAST
    assert LEAST not in said(found)[first:]


def test_without_a_judge_nothing_is_searched() -> None:
    with pytest.raises(OptionError, match="rank cider needs a judge for each image"):
        run(Script(SCRIPT), rank="cider")


def test_a_model_that_has_learnt_none_says_so(tiny_captioner: captioner.Captioner, picture: Image.Image) -> None:
    with pytest.raises(OptionError, match=r"has not learnt what CIDEr to expect: choose rank score or consensus"):
        tiny_captioner(picture, rank="cider")


def test_one_for_another_model_is_refused(tiny_captioner: captioner.Captioner, tiny_info: ModelInfo) -> None:
    other = make_expectation([(5,)], features=FEATURES + 1)
    foreign = make_expectation([(len(tiny_info.vocabulary),)])
    for expectation in (other, foreign):
        with pytest.raises(ModelError, match=r"expectation\.safetensors was fitted to another model than 'tiny'"):
            captioner.Captioner(tiny_captioner.engine, tiny_info, expectation=expectation)


def test_a_model_that_has_lost_its_own_says_so(tiny_captioner: captioner.Captioner, tiny_info: ModelInfo) -> None:
    info = replace(tiny_info, decoding=DecodingOptions(rank="cider"))
    with pytest.raises(ModelError, match=r"ranks by cider, but expectation\.safetensors is not in its directory"):
        captioner.Captioner(tiny_captioner.engine, info)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_captioner_ranks_each_picture_by_its_own(
    seed: int, tiny_captioner: captioner.Captioner, tiny_info: ModelInfo, picture: Image.Image
) -> None:
    """Scored anew by hand, the best of each picture's candidates is what the captioner says."""
    pictures = [picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), picture.rotate(90)]
    engine, vocabulary = tiny_captioner.engine, tiny_info.vocabulary
    words = range(FIRST, len(vocabulary))
    known = [(word,) for word in words] + [(one, two) for one in words for two in words]
    expectation = make_expectation(known, seed=seed)
    model = captioner.Captioner(engine, tiny_info, expectation=expectation)
    options = {"beam_size": 6, "n_best": 6, "max_length": 30, "rank": "cider"}
    batch = [result.captions for result in model.batch(pictures, **options)]
    differ = 0
    for one, captions in zip(pictures, batch, strict=True):
        assert [caption.text for caption in model.candidates(one, **options)] == [caption.text for caption in captions]
        pixels = captioner.images.to_array(one, tiny_info.image)
        (summary,) = engine.summary(engine.encode(pixels[None]))
        ended = [caption for caption in captions if len(caption.tokens) < 30]
        points = expectation.expect(summary, [vocabulary.encode(caption.tokens) for caption in ended])
        merits = [caption.score + SHARE * point for caption, point in zip(ended, points, strict=True)]
        assert merits == pytest.approx(sorted(merits, reverse=True))
        differ += captions[0].text != tiny_captioner(one, beam_size=6, max_length=30).text
    assert differ, "or nothing was shown"


@needs_torch
def test_the_summary_is_the_mean_of_what_is_attended_to(tiny_captioner: captioner.Captioner) -> None:
    grid = tiny_captioner.engine.encode(np.random.default_rng(0).normal(size=(3, 3, 32, 64)).astype(np.float32))
    np.testing.assert_allclose(tiny_captioner.engine.summary(grid), grid.values.mean(dim=1).numpy(), rtol=1e-6)


def test_pictures_of_one_batch_may_be_ranked_differently(
    tiny_captioner: captioner.Captioner, tiny_info: ModelInfo, picture: Image.Image
) -> None:
    words = range(FIRST, len(tiny_info.vocabulary))
    expectation = make_expectation([(word,) for word in words], seed=1)
    model = captioner.Captioner(tiny_captioner.engine, tiny_info, expectation=expectation)
    ranks = ["score", "cider", "consensus", "cider"]
    options = [model.options(beam_size=6, max_length=30, rank=rank) for rank in ranks]
    pixels = [captioner.images.to_array(picture.rotate(20 * turn), tiny_info.image) for turn in range(4)]
    together = model.caption_pixels(pixels, options)
    alone = [model.caption_pixels([one], own)[0] for one, own in zip(pixels, options, strict=True)]
    assert [[one.text for one in captions] for captions in together] == [[one.text for one in own] for own in alone]
