"""Several models as one: an engine whose members vote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import captioner
from captioner.checkpoint import load_model, read_info, save_model, write_info
from captioner.engines import FloatArray
from captioner.errors import DataError
from captioner.tokens import Vocabulary
from training.ensemble import load_ensemble
from training.evaluate import main


@pytest.fixture
def models(toy_run: Path, tmp_path: Path) -> list[str]:
    """The toy model, and another whose decoder prefers other words."""
    model, info = load_model(toy_run / "model")
    with torch.no_grad():
        model.output.bias.normal_(generator=torch.Generator().manual_seed(0))
    save_model(tmp_path / "other", model, replace(info, name="other"))
    return [str(toy_run / "model"), str(tmp_path / "other")]


def pixels(count: int) -> FloatArray:
    return np.random.default_rng(0).standard_normal((count, 3, 32, 32)).astype(np.float32)


def test_a_step_is_the_mean_of_the_members_steps(models: list[str]) -> None:
    together = load_ensemble(models, device="cpu").engine
    members = [captioner.load(model, engine="torch").engine for model in models]
    tokens = np.full(2, Vocabulary.bos)
    found, state, weights = together.step(tokens, together.start(grid := together.encode(pixels(2))), grid)
    each = [engine.step(tokens, engine.start(own := engine.encode(pixels(2))), own) for engine in members]
    mean = np.mean([np.exp(step[0].log_probs) for step in each], axis=0)
    np.testing.assert_allclose(np.exp(found.log_probs), mean, atol=1e-6)
    np.testing.assert_allclose(weights, np.mean([step[2] for step in each], axis=0), atol=1e-6)
    assert not np.allclose(each[0][0].log_probs, each[1][0].log_probs, atol=0.1)
    # The next step goes on from the members' own states, rows in the order asked for.
    rows, tokens = np.array([1, 0]), np.array([5, 6])
    found, _, _ = together.step(tokens, together.select(state, rows), together.select(grid, rows))
    expected = [
        engine.step(tokens, engine.select(step[1], rows), engine.select(engine.encode(pixels(2)), rows))[0].log_probs
        for engine, step in zip(members, each, strict=True)
    ]
    mean = np.mean(np.exp(expected), axis=0)
    np.testing.assert_allclose(np.exp(found.log_probs), mean, atol=1e-6)
    some, _, _ = together.step(tokens, together.select(state, rows), together.select(grid, rows), 2)
    assert some.tokens is not None
    np.testing.assert_array_equal(some.tokens, (-found.log_probs).argsort(axis=1)[:, :2])


def test_a_model_with_itself_says_what_it_says_alone(models: list[str], toy_data: Path) -> None:
    alone, twice = captioner.load(models[1], engine="torch"), load_ensemble([models[1]] * 2, device="cpu")
    for picture in sorted((toy_data / "dev").iterdir()):
        one, two = alone(picture), twice(picture)
        assert two.text == one.text
        assert two.score == pytest.approx(one.score, abs=1e-5)
        assert two.model == "other+other"


def test_models_of_different_words_are_refused(models: list[str]) -> None:
    info = read_info(models[1])
    swapped = [*info.vocabulary.tokens[:-2], info.vocabulary.tokens[-1], info.vocabulary.tokens[-2]]
    write_info(Path(models[1]), replace(info, vocabulary=Vocabulary(swapped)))
    with pytest.raises(DataError, match="cannot speak together: train them on the same data"):
        load_ensemble(models, device="cpu")


def test_the_command_measures_several_as_one(models: list[str], toy_data: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--data", str(toy_data), "--tokenizer", "simple", "--device", "cpu", "--json", str(figures)]
    assert main(["--model", *models, *arguments]) == 0
    values = json.loads(figures.read_text())
    assert values["model"] == "toy+other"
    assert values["engine"].startswith("mean of 2, torch cpu")
    assert len(values["predictions"]) == 12


def test_the_figures_of_several_are_written_into_none(models: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--model", *models, "--data", "x", "--record"])
    assert stopped.value.code == 2
    assert "--record writes into one model: name one" in capsys.readouterr().err
