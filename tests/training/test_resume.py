"""A resumed run ends exactly where an uninterrupted one does: the same losses and the same weights, to the last bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from captioner.errors import DataError
from training import train as module
from training.recipe import Recipe, Stage
from training.run_folder import RunFolder
from training.train import train

Run = Callable[..., None]


@pytest.fixture
def run(toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path) -> Run:
    """Train in one folder, by default the toy recipe."""

    def train_there(recipe: Recipe = toy_recipe, folder: str = "run", **options: Any) -> None:
        train(recipe, toy_data, tmp_path / folder, cache=toy_cache, **options)

    return train_there


def interrupt_at(call: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """A function that does its work until its call number ``call``, from 0 on: there the user presses Ctrl-C."""
    calls = iter(range(call + 1))

    def interrupted(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    return interrupted


def interrupt_evaluation(monkeypatch: pytest.MonkeyPatch, run: Run, epoch: int, **options: Any) -> None:
    """Run until ``epoch``, counted over this call, is trained but neither evaluated nor saved."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "predict", interrupt_at(epoch, module.predict))
        with pytest.raises(KeyboardInterrupt):
            run(**options)


def read_curve(folder: Path) -> list[dict[str, float]]:
    """The epochs that are finished, without their seconds."""
    if not (folder / "history.jsonl").exists():
        return []
    epochs = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in epochs]


def assert_equal(ours: Any, theirs: Any, where: str) -> None:
    """Nested states are the same, tensors to the last bit; only how long an epoch took may differ."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for name in set(ours) - {"seconds"}:
            assert_equal(ours[name], theirs[name], f"{where} {name}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for number, (mine, yours) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(mine, yours, f"{where} {number}")
    else:
        assert ours == theirs, where


def assert_same_run(ours: Path, theirs: Path) -> None:
    assert read_curve(ours) == read_curve(theirs)
    weights = sorted(path.name for path in theirs.glob("*.pt"))
    assert weights == sorted(path.name for path in ours.glob("*.pt"))
    assert {"last.pt", "best.pt"} <= set(weights)
    for name in weights:
        loaded = (torch.load(folder / name, weights_only=True) for folder in (ours, theirs))
        assert_equal(*loaded, name)
    for name in ("model.safetensors", "config.json"):
        assert (ours / "model" / name).read_bytes() == (theirs / "model" / name).read_bytes()


@pytest.mark.parametrize(
    "epoch", [0, 1, 2, 3], ids=["in the first epoch", "within stage 0", "between the stages", "within stage 1"]
)
def test_interrupted_once(run: Run, toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    interrupt_evaluation(monkeypatch, run, epoch)
    assert len(read_curve(tmp_path / "run")) == epoch
    run(resume=True)
    assert_same_run(tmp_path / "run", toy_run)


def test_interrupted_after_every_epoch(
    run: Run, toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in range(4):
        interrupt_evaluation(monkeypatch, run, min(epoch, 1), resume=True)
    run(resume=True)
    assert_same_run(tmp_path / "run", toy_run)


@pytest.mark.parametrize("epoch", range(4))
def test_interrupted_between_best_and_last(
    run: Run, toy_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """The one moment when the best weights on disk are ahead of the state."""

    def rising(folder: Path) -> Callable[..., Any]:
        """Stands in for the scorer: each epoch is better than those before, so that each writes best.pt."""
        return lambda _references: lambda _captions: float(len(read_curve(folder)))

    with monkeypatch.context() as patch:
        patch.setattr(module, "CiderScorer", rising(tmp_path / "whole"))
        run(folder="whole")
        patch.setattr(module, "CiderScorer", rising(tmp_path / "run"))
        patch.setattr(RunFolder, "save", interrupt_at(epoch, RunFolder.save))
        with pytest.raises(KeyboardInterrupt):
            run()
    monkeypatch.setattr(module, "CiderScorer", rising(tmp_path / "run"))
    run(resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_patience_is_remembered(run: Run, toy_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    still = Stage(epochs=9, images_per_batch=12, decoder_rate=1e-30)
    learning = still.replace(train_encoder=True, encoder_rate=1e-30)
    recipe = toy_recipe.replace(patience=2, weight_decay=0.0, stages=(still, learning))
    run(recipe, "whole")
    assert len(read_curve(tmp_path / "whole")) == 5
    for epoch in (2, 1, 1):  # amid stage 0's patience, after its end, amid stage 1's
        interrupt_evaluation(monkeypatch, run, epoch, recipe=recipe, resume=True)
    run(recipe, resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.fixture
def varied(toy_recipe: Recipe, toy_run: Path) -> Recipe:
    """A stage on views behind frozen modules, then scheduled sampling, a reward, and a teacher; ten evaluations."""
    base = Stage(epochs=1, images_per_batch=4, decoder_rate=1e-2)
    stages = (
        base.replace(epochs=2, train_encoder=True, encoder_rate=1e-3, frozen="features.2", views=2, crop=0.8),
        base.replace(scheduled_sampling=0.5, evaluations=3),
        base.replace(
            epochs=2,
            objective="reward",
            decoder_rate=1e-3,
            samples=3,
            sample_length=8,
            likelihood_share=0.3,
            evaluations=2,
        ),
        base.replace(distillation=0.5),
    )
    return toy_recipe.replace(stages=stages, patience=9, teachers=(str(toy_run / "model"),))


VARIED = [(0, 0, 0), (0, 1, 0), *((1, 0, part) for part in range(3))]
VARIED += [*((2, epoch, part) for epoch in range(2) for part in range(2)), (3, 0, 0)]


def test_all_kinds_of_stages_interrupted_after_every_evaluation(
    run: Run, varied: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(varied, "whole")
    curve = read_curve(tmp_path / "whole")
    assert [(row["stage"], row["epoch"], row["part"]) for row in curve] == VARIED
    for number in range(len(VARIED)):
        interrupt_evaluation(monkeypatch, run, min(number, 1), recipe=varied, resume=True)
        assert len(read_curve(tmp_path / "run")) == number
    run(varied, resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_resumed_run_does_not_need_the_model_that_it_started_from(
    run: Run, varied: Recipe, toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = shutil.copytree(toy_run / "model", tmp_path / "start")
    recipe = varied.replace(start=str(start), stages=varied.stages[:2], teachers=())
    run(recipe, "whole")
    interrupt_evaluation(monkeypatch, run, 2, recipe=recipe)  # the first is of the start itself
    (start / "model.safetensors").unlink()
    run(recipe, resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(
    run: Run, toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.*") if "events" not in path.name}
    run(resume=True)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.*") if "events" not in path.name}
    assert before == after
    assert_same_run(tmp_path / "run", toy_run)


def test_resuming_with_another_recipe_raises(run: Run, toy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_evaluation(monkeypatch, run, 1)
    with pytest.raises(DataError, match="was begun with another recipe"):
        run(toy_recipe.replace(dropout=0.2), resume=True)


def test_starting_in_a_used_folder_raises(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_evaluation(monkeypatch, run, 1)
    with pytest.raises(DataError, match="holds a training run: add --resume"):
        run()
