from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import captioner
from captioner.checkpoint import load_model
from captioner.encoder import GridEncoder
from captioner.errors import DataError, OptionError, WeightsError
from captioner.tokens import WordTokenizer
from training.datasets import Example
from training.recipe import Recipe, Stage
from training.train import train


def read_history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_loss_falls_and_the_captions_are_learnt(
    learnt_run: Path, learnt_captioner: captioner.Captioner, toy_examples: dict[str, list[Example]]
) -> None:
    losses = [epoch["loss"] for epoch in read_history(learnt_run) if epoch["stage"] == 0]
    assert losses[-1] < 0.4 * losses[0]
    assert max(losses[20:]) < min(losses[:5])
    words = WordTokenizer()
    for example in toy_examples["train"]:
        wanted = {words.join(words.tokenize(caption)) for caption in example.captions}
        assert learnt_captioner(example.image).text in wanted, example.image.name


def test_history_tells_every_epoch(toy_run: Path) -> None:
    history = read_history(toy_run)
    assert [(epoch["stage"], epoch["epoch"]) for epoch in history] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for epoch in history:
        assert list(epoch) == ["stage", "epoch", "loss", "dev_cider", "seconds"]
        assert epoch["loss"] > 0
        assert 0 <= epoch["dev_cider"] <= 10


def test_tensorboard_has_the_curves(toy_run: Path) -> None:
    events = EventAccumulator(str(toy_run / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("dev/CIDEr")] == pytest.approx(
        [epoch["dev_cider"] for epoch in read_history(toy_run)], rel=1e-6
    )
    for name in ("train/loss", "train/learning_rate"):
        assert [event.step for event in events.Scalars(name)] == [0, 1000, 2000, 3000]
    rates = [event.value for event in events.Scalars("train/learning_rate")]
    # Half-way through a stage, the cosine after a warmup of a tenth stands at (1 + cos(4/9 pi)) / 2.
    assert rates == pytest.approx([0, 1e-2 * 0.586824, 0, 2e-3 * 0.586824], rel=1e-5)


def test_the_model_says_what_made_it(toy_run: Path, toy_recipe: Recipe, toy_weights: Path, toy_data: Path) -> None:
    model = captioner.load(toy_run / "model", device="cpu", precision="fp32")
    info = model.info
    assert (info.name, info.description, info.tokenizer) == ("toy", "Coloured shapes.", "words")
    assert (info.image, info.decoding) == (toy_recipe.image, toy_recipe.decoding)
    assert (info.model.grid_rows, info.model.grid_columns, info.model.grid_features) == (4, 4, 32)
    assert info.model.hidden_size == 24
    assert set(info.vocabulary.tokens[4:]) == {
        *("a", "one", "all", "square", "circle", "cross", "red", "green", "blue", "yellow")
    }
    assert info.provenance["images"] == {"train": 12, "dev": 12}
    assert info.provenance["captions"] == {"train": 24, "dev": 24}
    assert Recipe.from_dict(info.provenance["recipe"]) == toy_recipe.replace(encoder_weights=toy_weights.name)
    config = (toy_run / "model" / "config.json").read_text()
    for path in (toy_weights.parent, toy_data, toy_run, Path.home()):
        assert str(path) not in config


def test_the_model_kept_is_the_best(toy_run: Path, learnt_run: Path, toy_data: Path) -> None:
    for folder in (toy_run, learnt_run):
        model, _ = load_model(folder / "model")
        saved = torch.load(folder / "last.pt", weights_only=True)
        best = max(epoch["dev_cider"] for epoch in read_history(folder))
        assert saved["progress"]["best"] == best
        start, best_weights = (torch.load(folder / name, weights_only=True) for name in ("start-1.pt", "best.pt"))
        bests = [epoch["stage"] for epoch in read_history(folder) if epoch["dev_cider"] == best]
        # The first of equals is kept: stage 0's weights where stage 1 did not surpass them.
        assert all(torch.equal(start[name], best_weights[name]) for name in start) == (bests[0] == 0)
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, best_weights[name].half().to(weight.dtype)), name


def state_of_encoder(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    start = "encoder.backbone."
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


def test_only_the_second_stage_changes_the_encoder_and_never_its_statistics(toy_run: Path, toy_weights: Path) -> None:
    initial = torch.load(toy_weights, weights_only=True)
    after_first = state_of_encoder(torch.load(toy_run / "start-1.pt", weights_only=True))
    last = torch.load(toy_run / "last.pt", weights_only=True)
    after_second = state_of_encoder(last["model"])
    averaged = state_of_encoder({name.removeprefix("module."): value for name, value in last["average"].items()})
    parameters = {name for name, _ in GridEncoder("mobilenet_v2", "features.4").backbone.named_parameters()}
    assert set(initial) == set(after_first) == set(after_second) == set(averaged)
    assert len(initial) > len(parameters) > 20
    for name, value in initial.items():
        assert torch.equal(after_first[name], value), name
        assert torch.equal(after_second[name], value) == (name not in parameters), name
        assert torch.equal(averaged[name], value) == (name not in parameters), name


def test_the_average_is_what_is_kept_and_each_stage_averages_afresh(
    toy_recipe: Recipe, toy_run: Path, toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    last = torch.load(toy_run / "last.pt", weights_only=True)
    assert int(last["average"]["n_averaged"]) == 2 * 3, "two epochs of three batches"
    once = toy_recipe.replace(stages=(toy_recipe.stages[0].replace(epochs=1),))
    train(once, toy_data, tmp_path / "run", cache=toy_cache)
    last, best = (torch.load(tmp_path / "run" / name, weights_only=True) for name in ("last.pt", "best.pt"))
    name = "output_hidden.weight"
    assert torch.equal(best[name], last["average"][f"module.{name}"])
    assert not torch.equal(best[name], last["model"][name])


@pytest.fixture
def still(toy_recipe: Recipe) -> Recipe:
    """Rates so small that nothing ever changes: the first epoch remains the best."""
    stages = (
        Stage(epochs=9, images_per_batch=12, decoder_rate=1e-30),
        Stage(epochs=9, images_per_batch=12, decoder_rate=1e-30, train_encoder=True, encoder_rate=1e-30),
    )
    return toy_recipe.replace(patience=2, weight_decay=0.0, stages=stages)


def test_a_stage_ends_when_patience_does(still: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path) -> None:
    progress = train(still, toy_data, tmp_path / "run", cache=toy_cache)
    assert [(epoch["stage"], epoch["epoch"]) for epoch in progress.history] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert (progress.stage, progress.epoch, progress.stale) == (2, 0, 0)
    assert len({epoch["loss"] for epoch in progress.history}) == 5, "each epoch has an order and dropout of its own"


def test_a_run_follows_from_its_seed(
    toy_recipe: Recipe, toy_run: Path, toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    short = toy_recipe.replace(stages=toy_recipe.stages[:1])
    same, other = (train(short.replace(seed=seed), toy_data, tmp_path / str(seed), cache=toy_cache) for seed in (3, 4))
    losses = [[epoch["loss"] for epoch in history] for history in (read_history(toy_run), same.history, other.history)]
    assert losses[0][:2] == losses[1]
    assert losses[1] != losses[2]


@pytest.fixture(scope="module")
def first_loss(
    toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., float]:
    """Loss of the first epoch with some fields changed, when training begins with the given stage."""

    @cache
    def run(number: int, **changes: float) -> float:
        of_stage = {name: value for name, value in changes.items() if name in Stage.__dataclass_fields__}
        of_recipe = {name: value for name, value in changes.items() if name not in of_stage}
        stage = toy_recipe.stages[number].replace(**{"epochs": 1, "warmup": 0.0} | of_stage)
        recipe = toy_recipe.replace(**of_recipe, stages=(stage,))
        return train(recipe, toy_data, tmp_path_factory.mktemp("run"), cache=toy_cache).history[0]["loss"]

    return run


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        *((0, {"dropout": 0.5}), (0, {"label_smoothing": 0.0}), (0, {"attention_penalty": 0.0})),
        *((0, {"max_tokens": 2}), (0, {"min_count": 9}), (0, {"weight_decay": 0.9}), (0, {"gradient_clip": 1e-6})),
        *((0, {"flip": False}), (0, {"decoder_rate": 0.1}), (0, {"warmup": 0.5})),
        (0, {"second_moment_decay": 0.5}),
        *((1, {"flip": False}), (1, {"decoder_rate": 0.1}), (1, {"encoder_rate": 0.1})),
        *((1, {"crop": 1.0}), (1, {"colour": 0.0})),
    ],
    ids=str,
)
def test_fields_take_effect(first_loss: Callable[..., float], stage: int, change: dict[str, float]) -> None:
    assert first_loss(stage, **change) != first_loss(stage)


def test_random_encoder_weights_need_no_file(
    toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    recipe = toy_recipe.replace(encoder_weights="", stages=(Stage(epochs=1),))
    assert len(train(recipe, toy_data, tmp_path / "run", cache=toy_cache).history) == 1


def test_rates_that_let_the_loss_explode_are_named(
    toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    recipe = toy_recipe.replace(stages=(Stage(epochs=1, images_per_batch=2, decoder_rate=1e30, warmup=0),))
    with pytest.raises(OptionError, match="lower the recipe's learning rates"):
        train(recipe, toy_data, tmp_path / "run", cache=toy_cache)
    assert not (tmp_path / "run" / "last.pt").exists()


def test_missing_weights_and_missing_splits_raise(
    toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="no encoder weights at nowhere"):
        train(toy_recipe.replace(encoder_weights="nowhere.pth"), toy_data, tmp_path / "run", cache=toy_cache)
    with pytest.raises(DataError, match="has no train split"):
        train(toy_recipe, toy_data / "dev.jsonl", tmp_path / "run", cache=toy_cache)
