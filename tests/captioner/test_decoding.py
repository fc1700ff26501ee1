"""Decoding against oracles: exhaustive enumeration, greedy argmax, and the distributions that sampling must follow."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.decoding import DecodingOptions, Hypothesis, decode
from captioner.decoding.beam import likeliest
from captioner.decoding.filters import no_repeat_ngram
from captioner.decoding.sampling import truncate
from captioner.engines import FloatArray, IntArray
from captioner.engines.candidates import Candidates
from captioner.errors import OptionError
from captioner.tokens import Vocabulary

BOS, EOS = Vocabulary.bos, Vocabulary.eos
FORBIDDEN = (Vocabulary.pad, Vocabulary.bos, Vocabulary.unk)


@dataclass(frozen=True)
class Rows:
    """The toy engine's grid and state at once: which image a row belongs to, and what it has read."""

    images: IntArray
    prefixes: IntArray


class ToyEngine:
    """A language model drawn at random: each image and prefix has a distribution of its own. P is 2."""

    name = "toy"

    def __init__(self, vocabulary: int, *, seed: int = 0, end_bias: float = 0.0) -> None:
        self.vocabulary, self.seed, self.end_bias = vocabulary, seed, end_bias
        self.rows_seen: list[int] = []

    def distribution(self, image: int, prefix: tuple[int, ...]) -> FloatArray:
        random = np.random.default_rng([self.seed, image, *prefix])
        logits = random.normal(size=self.vocabulary) * 2
        logits[EOS] += self.end_bias
        return (logits - np.log(np.exp(logits).sum())).astype(np.float32)

    def encode(self, pixels: FloatArray) -> Rows:
        return Rows(np.arange(len(pixels)), np.empty((len(pixels), 0), dtype=np.int64))

    def start(self, grid: Rows) -> Rows:
        return grid

    def step(
        self, tokens: IntArray, state: Rows, grid: Rows, count: int | None = None
    ) -> tuple[Candidates, Rows, FloatArray]:
        assert len(tokens) % len(grid.images) == 0, "rows must be a multiple of the grid's images"
        assert (state.images == grid.images.repeat(len(tokens) // len(grid.images))).all(), "rows left their image"
        self.rows_seen.append(len(tokens))
        prefixes = np.concatenate((state.prefixes, tokens[:, None]), axis=1)
        log_probs = [
            self.distribution(image, tuple(prefix)) for image, prefix in zip(state.images, prefixes, strict=True)
        ]
        weights = np.stack((state.images, tokens), axis=1).astype(np.float32)
        return Candidates.likeliest(np.stack(log_probs), count), Rows(state.images, prefixes), weights

    def select(self, value: Rows, rows: IntArray) -> Rows:
        return Rows(value.images[rows], value.prefixes[rows])


def run(engine: ToyEngine, images: int, **options: Any) -> list[list[Hypothesis]]:
    return decode(engine, engine.encode(np.zeros((images, 1), dtype=np.float32)), images, DecodingOptions(**options))


def log_probability(engine: ToyEngine, image: int, tokens: tuple[int, ...], *, ended: bool = True) -> float:
    sequence = (*tokens, EOS) if ended else tokens
    return sum(
        float(engine.distribution(image, (BOS, *sequence[:position]))[token]) for position, token in enumerate(sequence)
    )


def enumerate_all(
    engine: ToyEngine, image: int, max_length: int, penalty: float
) -> list[tuple[float, tuple[int, ...]]]:
    """Every sequence that ends within ``max_length`` steps, best score first."""
    words = [token for token in range(engine.vocabulary) if token not in (*FORBIDDEN, EOS)]
    scored = [
        (log_probability(engine, image, tokens) / (length + 1) ** penalty, tokens)
        for length in range(max_length)
        for tokens in itertools.product(words, repeat=length)
    ]
    return sorted(scored, reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_full_width_beam_finds_what_enumeration_finds(seed: int, penalty: float) -> None:
    engine = ToyEngine(vocabulary=6, seed=seed)  # two words: 1 + 2 + 4 + 8 + 16 sequences of up to five steps
    found = run(engine, 3, beam_size=48, n_best=48, max_length=5, length_penalty=penalty)
    for image, hypotheses in enumerate(found):
        expected = enumerate_all(engine, image, 5, penalty)
        ended = [hypothesis for hypothesis in hypotheses if hypothesis.ended]
        assert [hypothesis.tokens for hypothesis in ended] == [tokens for _, tokens in expected[: len(ended)]]
        assert len(ended) == len(expected)
        np.testing.assert_allclose([hypothesis.score for hypothesis in ended], [s for s, _ in expected], rtol=1e-5)


def plain_beam(engine: ToyEngine, image: int, width: int, max_length: int, penalty: float) -> list[tuple[int, ...]]:
    """Beam search as one would write it first: lists, one hypothesis at a time."""
    beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, max_length + 1):
        candidates = []
        for total, tokens in beams:
            log_probs = engine.distribution(image, (BOS, *tokens))
            words = [token for token in range(engine.vocabulary) if token not in FORBIDDEN]
            candidates += [(total + float(log_probs[token]), (*tokens, token)) for token in words]
        candidates.sort(reverse=True)
        ended = [(total / length**penalty, tokens[:-1]) for total, tokens in candidates[:width] if tokens[-1] == EOS]
        finished = sorted([*finished, *ended], reverse=True)[:width]
        beams = [(total, tokens) for total, tokens in candidates if tokens[-1] != EOS][:width]
        if len(finished) == width:
            return [tokens for _, tokens in finished]
    cut_off = [(total / max_length**penalty, tokens) for total, tokens in beams]
    return [tokens for _, tokens in (*finished, *cut_off)][:width]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    width=st.integers(1, 6),
    max_length=st.integers(1, 8),
    penalty=st.sampled_from([0.0, 0.7, 1.0]),
    end_bias=st.floats(-2, 3),
)
def test_the_batched_beam_equals_the_plain_one(
    seed: int, width: int, max_length: int, penalty: float, end_bias: float
) -> None:
    engine = ToyEngine(vocabulary=10, seed=seed, end_bias=end_bias)
    options = {"beam_size": width, "n_best": width, "max_length": max_length, "length_penalty": penalty}
    for image, hypotheses in enumerate(run(engine, 3, **options)):
        assert [one.tokens for one in hypotheses] == plain_beam(engine, image, width, max_length, penalty)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), images=st.integers(1, 4), max_length=st.integers(1, 9))
def test_a_beam_of_one_is_greedy(seed: int, images: int, max_length: int) -> None:
    engine = ToyEngine(vocabulary=9, seed=seed)
    for image, (hypothesis,) in enumerate(run(engine, images, beam_size=1, max_length=max_length)):
        tokens: list[int] = []
        ended = False
        while len(tokens) < max_length and not ended:
            log_probs = engine.distribution(image, (BOS, *tokens))
            log_probs[list(FORBIDDEN)] = -np.inf
            best = int(log_probs.argmax())
            ended = best == EOS
            tokens += [] if ended else [best]
        assert (hypothesis.tokens, hypothesis.ended) == (tuple(tokens), ended)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    beam_size=st.integers(1, 6),
    max_length=st.integers(1, 8),
    penalty=st.floats(0, 2),
    end_bias=st.floats(-3, 3),
)
def test_what_always_holds_of_a_beam(
    seed: int, beam_size: int, max_length: int, penalty: float, end_bias: float
) -> None:
    engine = ToyEngine(vocabulary=10, seed=seed, end_bias=end_bias)
    options = {"beam_size": beam_size, "n_best": beam_size, "max_length": max_length, "length_penalty": penalty}
    together = run(engine, 3, **options)
    for image, hypotheses in enumerate(together):
        assert 1 <= len(hypotheses) <= beam_size
        assert len({(one.tokens, one.ended) for one in hypotheses}) == len(hypotheses), "a sequence twice"
        ranks = [(not one.ended, -one.score) for one in hypotheses]
        assert ranks == sorted(ranks), "what ended comes first, then by score"
        for one in hypotheses:
            assert not set(one.tokens) & {*FORBIDDEN, EOS}
            assert len(one.tokens) + one.ended <= max_length
            assert one.ended or len(one.tokens) == max_length
            steps = len(one.tokens) + one.ended
            assert one.log_probability == pytest.approx(
                log_probability(engine, image, one.tokens, ended=one.ended), abs=1e-3
            )
            assert one.score == pytest.approx(one.log_probability / steps**penalty, rel=1e-4)
            assert len(one.token_log_probabilities) == len(one.tokens) == len(one.weights)
            # The toy's weights tell which image and which previous token the step saw.
            read_before = (BOS, *one.tokens[:-1]) if one.tokens else ()
            np.testing.assert_array_equal(
                one.weights, np.array([(image, token) for token in read_before]).reshape(-1, 2)
            )


def test_images_of_a_batch_do_not_disturb_each_other() -> None:
    batch = run(ToyEngine(vocabulary=9, seed=5), 6, beam_size=3, n_best=3, max_length=7)

    class Shifted(ToyEngine):
        offset = 0

        def distribution(self, image: int, prefix: tuple[int, ...]) -> FloatArray:
            return super().distribution(image + self.offset, prefix)

    alone = Shifted(vocabulary=9, seed=5)
    for image in range(6):
        alone.offset = image
        (hypotheses,) = run(alone, 1, beam_size=3, n_best=3, max_length=7)
        assert [one.tokens for one in hypotheses] == [one.tokens for one in batch[image]]


def test_finished_images_leave_the_batch() -> None:
    engine = ToyEngine(vocabulary=9, seed=1, end_bias=1.0)
    run(engine, 8, beam_size=2, max_length=20)
    first, *rows = engine.rows_seen
    assert first == 8  # the rows of an image would begin alike
    assert rows[0] == 16
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < 16


def test_when_nothing_ends_the_best_unfinished_sequence_is_returned() -> None:
    engine = ToyEngine(vocabulary=8, seed=2, end_bias=-1000.0)
    ((best, second, _),) = run(engine, 1, beam_size=3, n_best=3, max_length=5)
    assert not best.ended
    assert len(best.tokens) == 5
    assert best.score >= second.score


def test_the_unknown_token_is_never_emitted_however_likely() -> None:
    class Unsure(ToyEngine):
        def distribution(self, image: int, prefix: tuple[int, ...]) -> FloatArray:
            log_probs = np.full(self.vocabulary, -20.0, dtype=np.float32)
            log_probs[list(FORBIDDEN)] = -1.1
            return log_probs

    for options in ({"beam_size": 3}, {"method": "sample", "seed": 0}):
        for (hypothesis,) in run(Unsure(vocabulary=7), 2, max_length=6, **options):
            assert not set(hypothesis.tokens) & set(FORBIDDEN)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("method", ["beam", "sample"])
def test_no_ngram_is_repeated(size: int, method: str) -> None:
    engine = ToyEngine(vocabulary=7, seed=3, end_bias=-6.0)
    options = {"method": method, "beam_size": 3, "n_best": 3, "max_length": 12, "seed": 0}
    repeats = 0
    for asked in (0, size):
        for hypotheses in run(engine, 5, no_repeat_ngram=asked, **options):
            for one in hypotheses:
                ngrams = list(zip(*(one.tokens[start:] for start in range(size)), strict=False))
                if asked:
                    assert len(set(ngrams)) == len(ngrams), one.tokens
                else:
                    repeats += len(ngrams) - len(set(ngrams))
    assert repeats, "without the filter this engine must repeat itself, else the test shows nothing"


def test_ngrams_so_far_are_not_completed_again() -> None:
    prefixes = np.array([[4, 5, 4, 3, 4], [5, 4, 4, 3, 5]])
    assert [set(row) - {Vocabulary.pad} for row in no_repeat_ngram(2)(prefixes).tolist()] == [{5, 3}, {4}]
    assert [set(row) for row in no_repeat_ngram(1)(prefixes).tolist()] == [{3, 4, 5}, {3, 4, 5}]
    assert no_repeat_ngram(2)(prefixes[:, :1]).shape == (2, 0)
    assert no_repeat_ngram(6)(prefixes).shape == (2, 0)


@pytest.mark.parametrize("count", [None, 1, 4, 6, 9])
def test_candidates_are_the_likeliest_and_can_be_forbidden(count: int | None) -> None:
    log_probs = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    offered = Candidates.likeliest(log_probs.copy(), count)
    forbidden = np.array([[0, 0], [5, 2], [1, 4]])
    offered.forbid(forbidden)
    offered.forbid_everywhere(np.array([False, True, False, False]))
    tokens = np.arange(6)[None].repeat(3, axis=0) if offered.tokens is None else offered.tokens
    assert tokens.shape == (3, min(count or 6, 6))
    for row in range(3):
        order = (-log_probs[row]).argsort() if count else np.arange(6)
        assert tokens[row].tolist() == order[:count].tolist()
        expected = [-np.inf if token in {1, *forbidden[row]} else log_probs[row, token] for token in tokens[row]]
        assert offered.log_probs[row].tolist() == expected


# No more than are wanted, many more.
@pytest.mark.parametrize("offered", [20, 300])
@pytest.mark.parametrize(("width", "count"), [(1, 2), (1, 20), (3, 6), (10, 20)])
def test_the_likeliest_continuations_are_found_in_order(offered: int, width: int, count: int) -> None:
    random = np.random.default_rng(offered + count)
    log_probs = random.normal(size=(5, width, offered)).astype(np.float32)
    log_probs[1] = log_probs[1].round()  # many are equal
    log_probs[2, :, random.permutation(offered)[: offered // 2]] = -np.inf
    totals = random.normal(size=(5, width)).astype(np.float32)
    totals[4, 1:] = -np.inf
    found, values = likeliest(log_probs.reshape(-1, offered), totals, count)

    candidates = (log_probs + totals[:, :, None]).reshape(5, -1)
    np.testing.assert_array_equal(values, -np.sort(-candidates, axis=1)[:, :count])
    np.testing.assert_array_equal(candidates.take(found), values)
    for image in range(5):
        assert (found[image] // (width * offered) == image).all()
        assert len(set(found[image].tolist())) == count


def test_where_too_few_are_offered_impossible_ones_fill_the_places() -> None:
    offered = Candidates.likeliest(np.zeros((3, 4), dtype=np.float32), 9)
    assert offered.at_least(4) is offered
    log_probs, tokens = offered.at_least(6)
    assert tokens is not None
    assert tokens.shape == log_probs.shape == (3, 6)
    assert np.isneginf(log_probs).sum(axis=1).tolist() == [2, 2, 2]


def test_sampling_follows_the_distribution() -> None:
    engine = ToyEngine(vocabulary=8, seed=7)
    ((*drawn,),) = run(engine, 1, method="sample", n_best=100, max_length=1, seed=1)
    more = [run(engine, 1, method="sample", n_best=100, max_length=1, seed=seed)[0] for seed in range(40)]
    first = [one.tokens[0] if one.tokens else EOS for hypotheses in (drawn, *more) for one in hypotheses]
    expected = np.exp(engine.distribution(0, (BOS,)).astype(np.float64))
    expected[list(FORBIDDEN)] = 0
    expected /= expected.sum()
    np.testing.assert_allclose(np.bincount(first, minlength=8) / len(first), expected, atol=0.03)


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, 5), ({"temperature": 0.5}, 5), ({"temperature": 3.0}, 5), ({"top_k": 3}, 3), ({"top_p": 0.95}, 4)],
    ids=str,
)
def test_many_draws_stand_the_chi_square_test(options: dict[str, Any], kept: int) -> None:
    """Pearson's statistic of 20,000 first tokens, below the value that one in a thousand exceeds by chance."""
    one_in_a_thousand = {2: 13.82, 3: 16.27, 4: 18.47}

    class Same(ToyEngine):
        def distribution(self, image: int, prefix: tuple[int, ...]) -> FloatArray:
            return super().distribution(0, prefix)

    engine = Same(vocabulary=8, seed=7)
    drawn = run(engine, 200, method="sample", n_best=100, max_length=1, seed=5, **options)
    first = [one.tokens[0] if one.tokens else EOS for hypotheses in drawn for one in hypotheses]
    found = np.bincount(first, minlength=8)
    expected = np.exp(engine.distribution(0, (BOS,)).astype(np.float64) / options.get("temperature", 1.0))
    expected[list(FORBIDDEN)] = 0
    expected[np.argsort(expected)[:-kept]] = 0
    expected *= len(first) / expected.sum()
    assert found[expected == 0].sum() == 0
    there = expected > 0
    assert len(first) == 20_000
    assert there.sum() == kept
    assert ((found - expected)[there] ** 2 / expected[there]).sum() < one_in_a_thousand[kept - 1]


def test_a_draw_of_zero_picks_nothing_impossible() -> None:
    """In single precision one draw in some eight million is 0, and the logarithm of that is no number to add."""
    seed, images, samples, vocabulary = 217, 50, 100, 8
    draws = np.random.default_rng(seed).standard_exponential((images * samples, vocabulary), dtype=np.float32)
    assert set((draws == 0).nonzero()[1]) & set(FORBIDDEN), "another seed is needed, else the test shows nothing"
    drawn = run(ToyEngine(vocabulary), images, method="sample", n_best=samples, max_length=1, seed=seed)
    assert not {token for hypotheses in drawn for one in hypotheses for token in one.tokens} & set(FORBIDDEN)
    assert [len(hypotheses) for hypotheses in drawn] == [samples] * images


def test_sampling_is_reproducible_by_its_seed_alone() -> None:
    def draw(seed: int | None) -> list[tuple[int, ...]]:
        engine = ToyEngine(vocabulary=12, seed=7)
        return [one.tokens for (one,) in run(engine, 8, method="sample", max_length=8, seed=seed)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    assert draw(None) != draw(None)


def test_a_cold_or_narrow_sampler_is_greedy() -> None:
    engine = ToyEngine(vocabulary=9, seed=11)
    greedy = [one.tokens for (one,) in run(engine, 4, beam_size=1, max_length=6)]
    for narrow in ({"temperature": 0.01}, {"top_k": 1}, {"top_p": 0.001}):
        assert [one.tokens for (one,) in run(engine, 4, method="sample", max_length=6, seed=0, **narrow)] == greedy


def test_truncation_keeps_the_top_k_and_the_nucleus() -> None:
    logits = np.log(np.array([[0.1, 0.4, 0.2, 0.3], [0.7, 0.1, 0.1, 0.1]], dtype=np.float32))
    kept = [
        np.isfinite(truncate(logits, top_k, top_p)).tolist()
        for top_k, top_p in [(0, 1.0), (2, 1.0), (0, 0.6), (1, 0.9)]
    ]
    assert kept[0] == [[True] * 4] * 2
    assert kept[1] == [[False, True, False, True], [True, True, False, False]]
    assert kept[2] == [[False, True, False, True], [True, False, False, False]]
    assert kept[3] == [[False, True, False, False], [True, False, False, False]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"beam_size": 0},
        {"beam_size": 2.5},
        {"beam_size": True},
        {"n_best": 4, "beam_size": 3},
        {"max_length": 0},
        {"length_penalty": -1},
        {"length_penalty": float("nan")},
        {"temperature": 0},
        {"top_p": 0},
        {"top_p": 1.5},
        {"method": "magic"},
        {"seed": "x"},
    ],
)
def test_impossible_options_raise(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        DecodingOptions(**wrong)
