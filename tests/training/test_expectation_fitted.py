"""Fitting what CIDEr to expect: the regression, its file, and what a model says by it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import captioner
from captioner.checkpoint import read_info
from captioner.decoding.expectation import EXPECTATION_NAME
from captioner.errors import DataError
from captioner.tokens import Vocabulary
from training import expectation as fitting
from training.cider import CiderScorer, fit_tfidf
from training.datasets import Example
from training.ensemble import load_ensemble
from training.expectation import expected_ngrams, expected_vectors, fit_expectation, main, regress
from training.predict import reference_tokens
from training.recipe import Recipe
from training.train import train

CAPTIONS = [
    [["a", "dog", "runs", "far"], ["a", "dog", "sits", "here"]],
    [["a", "cat", "runs", "far"], ["the", "cat", "is", "red"]],
    [["two", "men", "sit", "here"], ["men", "sit", "on", "grass"]],
]


def test_ngrams_of_few_images_are_not_expected() -> None:
    vocabulary = Vocabulary.build(
        [[word for image in CAPTIONS for caption in image for word in caption if word != "here"]]
    )
    assert expected_ngrams(CAPTIONS, vocabulary, 2) == [("a",), ("far",), ("runs",), ("runs", "far")]
    with pytest.raises(DataError, match="no word stands in the captions of 3 images: to rank by cider needs more data"):
        expected_ngrams(CAPTIONS, vocabulary, 3)


def test_the_score_against_the_expected_vector_is_the_mean_score() -> None:
    """Where nothing is clipped and lengths agree, CIDEr is linear in its references: the expectation loses nothing."""
    scorer = CiderScorer(CAPTIONS)
    for image, vector in enumerate(expected_vectors(CAPTIONS, scorer.tfidf)):
        for said in (["a", "dog", "runs", "far"], ["men", "sit", "on", "the"]):
            product = sum(share * vector.get(ngram, 0.0) for ngram, share in scorer.tfidf(said).unit().items())
            assert 10 / 4 * product == pytest.approx(scorer.score_image(image, said))


def test_the_regression_is_that_of_the_textbook() -> None:
    """By the normal equations of the augmented system, with an intercept that is not penalised."""
    random = np.random.default_rng(0)
    vectors = expected_vectors(CAPTIONS, fit_tfidf(CAPTIONS))
    ngrams = sorted(fit_tfidf(CAPTIONS).idf)
    summaries = random.normal(3.0, 2.0, (3, 5))
    weight, bias = regress(summaries, vectors, ngrams)
    standard = (summaries - summaries.mean(axis=0)) / summaries.std(axis=0)
    design = np.hstack((standard, np.ones((3, 1))))
    penalty = np.diag([fitting.PENALTY] * 5 + [0.0])
    targets = np.array([[vector.get(ngram, 0.0) for ngram in ngrams] for vector in vectors])
    expected = design @ np.linalg.solve(design.T @ design + penalty, design.T @ targets)
    np.testing.assert_allclose(summaries @ weight.T + bias, expected, atol=1e-12)


def test_a_feature_that_never_changes_does_no_harm() -> None:
    vectors, ngrams = expected_vectors(CAPTIONS, fit_tfidf(CAPTIONS)), [("a",), ("far",)]
    varied = np.random.default_rng(0).normal(size=(3, 4))
    still = np.hstack((varied, [[1.0], [1.0 + 1e-9], [1.0]]))
    expected, expected_bias = regress(varied, vectors, ngrams)
    weight, bias = regress(still, vectors, ngrams)
    np.testing.assert_allclose(weight[:, :4], expected)
    np.testing.assert_allclose(bias, expected_bias)
    assert not weight[:, 4].any()


def test_it_expects_of_each_picture_what_is_said_of_it(
    learnt_captioner: captioner.Captioner, toy_examples: dict[str, list[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own captions please it more than any other picture's of the twelve."""
    monkeypatch.setattr(fitting, "PENALTY", 0.1)
    examples = toy_examples["train"]
    expectation = fit_expectation(learnt_captioner, examples, minimum=1)
    said = reference_tokens(examples, learnt_captioner._tokenizer)
    sequences = [learnt_captioner.info.vocabulary.encode(captions[0]) for captions in said]
    for number, summary in enumerate(fitting.summarise(learnt_captioner, examples).astype(np.float32)):
        assert expectation.expect(summary, sequences).argmax() == number


def test_too_little_data_is_told(learnt_captioner: captioner.Captioner, toy_examples: dict[str, list[Example]]) -> None:
    with pytest.raises(DataError, match="no word stands in the captions of 13 images"):
        fit_expectation(learnt_captioner, toy_examples["train"], minimum=13)


def test_the_command_teaches_a_model(
    learnt_run: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(learnt_run / "model", model)
    assert main(["--model", str(model), "--data", str(toy_data), "--device", "cpu"]) == 0
    assert "expects 3 n-grams of 12 images and ranks by them" in capsys.readouterr().out
    taught = captioner.load(model, engine="torch")
    assert taught.expectation is not None
    assert taught.options().rank == "cider"
    assert not taught.info.figures, "those of another ranking"


def test_the_command_tells_what_is_wrong(
    learnt_run: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(tmp_path / "none"), "--data", str(toy_data)]) == 2
    assert main(["--model", str(learnt_run / "model"), "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("expectation: ") == 2


def test_several_models_rank_by_the_expectation_of_the_first(
    learnt_run: Path, toy_run: Path, toy_data: Path, tmp_path: Path
) -> None:
    models = [tmp_path / "one", tmp_path / "two"]
    for model, run in zip(models, (learnt_run, toy_run), strict=True):
        shutil.copytree(run / "model", model)
        main(["--model", str(model), "--data", str(toy_data), "--device", "cpu"])
    pixels = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    for order in (models, models[::-1]):
        together, first = load_ensemble(order, device="cpu"), captioner.load(order[0], engine="torch")
        assert together.expectation is not None
        assert first.expectation is not None
        np.testing.assert_array_equal(together.expectation.weight, first.expectation.weight)
        summaries = [model.engine.summary(model.engine.encode(pixels)) for model in (together, first)]
        np.testing.assert_allclose(*summaries, rtol=1e-5)


def test_too_little_data_for_it_is_told_before_the_training(
    toy_recipe: Recipe, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting.expected_ngrams, "__defaults__", (13,))
    recipe = toy_recipe.replace(decoding=toy_recipe.decoding.replace(rank="cider"))
    with pytest.raises(DataError, match="no word stands in the captions of 13 images"):
        train(recipe, toy_data, tmp_path / "run", cache=tmp_path / "cache")
    assert not (tmp_path / "run" / "model").exists()


def test_a_recipe_that_ranks_by_it_ends_with_it(toy_recipe: Recipe, toy_data: Path, tmp_path: Path) -> None:
    stage = toy_recipe.stages[0].replace(epochs=1)
    recipe = toy_recipe.replace(stages=(stage,), decoding=toy_recipe.decoding.replace(rank="cider"))
    train(recipe, toy_data, tmp_path, cache=tmp_path / "cache")
    assert captioner.load(tmp_path / "model", device="cpu").options().rank == "cider"
    assert read_info(tmp_path / "model").provenance["recipe"]["decoding"]["rank"] == "cider"

    path = tmp_path / "model" / EXPECTATION_NAME
    before = path.stat().st_mtime_ns
    train(recipe, toy_data, tmp_path, cache=tmp_path / "cache", resume=True)
    assert path.stat().st_mtime_ns == before, "what is done is not done again"
