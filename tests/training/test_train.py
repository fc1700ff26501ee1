from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import captioner
from captioner.checkpoint import load_model
from captioner.encoder import GridEncoder
from captioner.errors import DataError, OptionError, WeightsError
from captioner.model import Grid
from captioner.tokens import WordTokenizer
from training import train as module
from training.batching import Batch
from training.datasets import Example
from training.loss import Likelihood
from training.optimizer import schedule
from training.recipe import Recipe, Stage
from training.train import train

REWARDED = Stage(epochs=1, objective="reward", images_per_batch=4, decoder_rate=1e-2, samples=3, sample_length=8)


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
    places = [(epoch["stage"], epoch["epoch"], epoch["part"]) for epoch in history]
    assert places == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]
    for epoch in history:
        assert list(epoch) == ["stage", "epoch", "part", "loss", "dev_cider", "seconds"]
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


def test_frozen_modules_stay_and_later_ones_learn(
    toy_recipe: Recipe, toy_weights: Path, toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    stage = Stage(epochs=1, train_encoder=True, images_per_batch=4, decoder_rate=1e-2, encoder_rate=1e-2)
    stage = stage.replace(frozen="features.2", views=2, crop=0.8)
    train(toy_recipe.replace(stages=(stage,)), toy_data, tmp_path / "run", cache=toy_cache)
    initial = torch.load(toy_weights, weights_only=True)
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    averaged = {name.removeprefix("module."): value for name, value in last["average"].items()}
    parameters = {name for name, _ in GridEncoder("mobilenet_v2", "features.4").backbone.named_parameters()}
    for state in (state_of_encoder(last["model"]), state_of_encoder(averaged)):
        changed = {name for name, value in state.items() if not torch.equal(value, initial[name])}
        assert changed == {name for name in parameters if int(name.split(".")[1]) > 2}


class Recording(Likelihood):
    """The objective itself; it also notes which captions each part of an epoch had, and where its randomness began."""

    parts: ClassVar[list[list[tuple[int, int]]]] = []
    seeds: ClassVar[set[int]] = set()

    def __call__(self, grid: Callable[[], Grid], batch: Batch, done: float) -> torch.Tensor:
        copies = len(batch.captions) // len(batch.images)
        images = batch.images.repeat(copies).tolist()
        self.seeds.add(torch.initial_seed())
        self.parts[-1] += [pair for pair in zip(images, batch.captions.tolist(), strict=True) if pair[1] >= 0]
        return super().__call__(grid, batch, done)


def test_evaluations_share_out_the_batches_of_an_epoch(
    toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[list[tuple[int, int]]] = []
    monkeypatch.setattr(Recording, "parts", parts)
    monkeypatch.setattr(Recording, "seeds", set())
    monkeypatch.setattr(module, "Likelihood", Recording)
    real = module.run_part

    def run_part(*arguments: Any) -> float:
        parts.append([])
        return real(*arguments)

    monkeypatch.setattr(module, "run_part", run_part)
    stage = Stage(epochs=2, images_per_batch=5, decoder_rate=1e-2, evaluations=3)  # five batches of up to five
    recipe = toy_recipe.replace(stages=(stage,), patience=6)
    progress = train(recipe, toy_data, tmp_path / "run", cache=toy_cache)
    places = [(row["stage"], row["epoch"], row["part"]) for row in progress.history]
    assert places == [(0, epoch, part) for epoch in (0, 1) for part in (0, 1, 2)]
    everything = sorted((image, caption) for image in range(12) for caption in range(2))
    for epoch in (parts[:3], parts[3:]):
        assert sorted(pair for part in epoch for pair in part) == everything, "each caption once"
        assert sorted(-(-len(part) // 5) for part in epoch) == [1, 2, 2]
    assert parts[:3] != parts[3:]
    assert len(Recording.seeds) == 6, "each part has a dropout of its own"
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1000, 2000, 3000, 4000, 5000]
    # The rate follows the share of the stage that is over: before the parts, 0, 1/6, ... after a warmup of a tenth.
    expected = [1e-2 * schedule(part / 6, 0.1) for part in range(6)]
    rates = [event.value for event in events.Scalars("train/learning_rate")]
    assert rates == pytest.approx(expected, rel=1e-5)


def test_patience_counts_evaluations(still: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path) -> None:
    stages = (still.stages[0].replace(images_per_batch=4, evaluations=2),)
    progress = train(still.replace(stages=stages), toy_data, tmp_path / "run", cache=toy_cache)
    assert [(row["epoch"], row["part"]) for row in progress.history] == [(0, 0), (0, 1), (1, 0)]


def test_more_evaluations_than_batches_are_refused(
    toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    recipe = toy_recipe.replace(stages=(Stage(epochs=1, images_per_batch=12, evaluations=3),))
    with pytest.raises(OptionError, match=r"Stage\.evaluations is 3, but an epoch has 2 batches"):
        train(recipe, toy_data, tmp_path / "run", cache=toy_cache)


def test_a_run_with_scheduled_sampling_learns(
    toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    stage = Stage(epochs=12, images_per_batch=4, decoder_rate=2e-2, scheduled_sampling=0.5)
    recipe = toy_recipe.replace(dropout=0.0, patience=12, stages=(stage,))
    losses = [row["loss"] for row in train(recipe, toy_data, tmp_path / "run", cache=toy_cache).history]
    assert max(losses[-3:]) < 0.7 * losses[0]


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
    def run(number: int, **changes: Any) -> float:
        of_stage = {name: value for name, value in changes.items() if name in Stage.__dataclass_fields__}
        of_recipe = {name: value for name, value in changes.items() if name not in of_stage}
        base = (*toy_recipe.stages, REWARDED, toy_recipe.stages[1].replace(frozen="features.2", views=2))[number]
        stage = base.replace(**{"epochs": 1, "warmup": 0.0} | of_stage)
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
        *((0, {"views": 1}), (0, {"views": 1, "crop": 0.5}), (0, {"scheduled_sampling": 0.9})),
        *((1, {"frozen": "features.2", "views": 2}), (3, {"frozen": "features.3"}), (3, {"views": 3})),
        *((3, {"crop": 1.0}), (3, {"encoder_rate": 0.1})),
        *((2, {"samples": 4}), (2, {"sample_length": 3}), (2, {"likelihood_share": 0.5}), (2, {"flip": False})),
        (0, {"objective": "reward", "attention_penalty": 0.0}),
        *((0, {"cell": "gru"}), (0, {"layers": 2}), (0, {"attention": "dot"}), (0, {"attend": "after"})),
        *((0, {"image_input": "both"}), (0, {"reader": "bilstm"})),
    ],
    ids=str,
)
def test_fields_take_effect(first_loss: Callable[..., float], stage: int, change: dict[str, Any]) -> None:
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
