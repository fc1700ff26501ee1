from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from captioner.checkpoint import ModelInfo, load_model
from captioner.errors import DataError
from captioner.model import CaptionModel
from training.recipe import Recipe
from training.run_folder import Progress, RunFolder

HISTORY = [{"epoch": 0, "loss": 2.5}, {"epoch": 1, "loss": 1.5}]
PROGRESS = Progress(stage=1, epoch=2, part=1, best=0.5, stale=1, history=HISTORY)


@pytest.fixture
def folder(tmp_path: Path, toy_recipe: Recipe) -> RunFolder:
    return RunFolder(tmp_path / "deep" / "run", toy_recipe)


def test_progress_goes_from_part_to_part_to_epoch_to_stage() -> None:
    progress, places = Progress(), []
    for _ in range(5):
        progress.finish_part(2)
        places.append((progress.epoch, progress.part, progress.stale, progress.begun))
    assert places == [(0, 1, 1, True), (1, 0, 2, True), (1, 1, 3, True), (2, 0, 4, True), (2, 1, 5, True)]
    progress.finish_stage()
    assert progress == Progress(stage=1)
    assert not progress.begun


@pytest.mark.parametrize("resume", [False, True])
def test_an_empty_folder_begins_a_run(folder: RunFolder, resume: bool) -> None:
    assert folder.path.is_dir()
    assert folder.open(resume=resume) is None


def test_what_is_saved_comes_back(folder: RunFolder, toy_recipe: Recipe) -> None:
    folder.save(PROGRESS, model={"weight": torch.arange(3.0)}, optimizer={"state": {0: {"step": torch.tensor(4.0)}}})
    saved = RunFolder(folder.path, toy_recipe).open(resume=True)
    assert saved is not None
    assert Progress(**saved["progress"]) == PROGRESS
    assert torch.equal(saved["model"]["weight"], torch.arange(3.0))
    assert saved["optimizer"]["state"][0]["step"] == 4
    history = (folder.path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in history] == PROGRESS.history


def test_the_state_of_no_epoch_comes_back(folder: RunFolder) -> None:
    folder.save(Progress())
    saved = folder.open(resume=True)
    assert saved is not None
    assert Progress(**saved["progress"]) == Progress(), "minus infinity, the best before any epoch, included"


def test_a_used_folder_is_not_begun_again(folder: RunFolder) -> None:
    folder.save(PROGRESS)
    with pytest.raises(DataError, match=r"run holds a training run: add --resume"):
        folder.open(resume=False)


def test_another_recipes_run_is_not_resumed(folder: RunFolder, toy_recipe: Recipe) -> None:
    folder.save(PROGRESS)
    with pytest.raises(DataError, match=r"run was begun with another recipe"):
        RunFolder(folder.path, toy_recipe.replace(dropout=0.2)).open(resume=True)


def test_a_run_older_than_a_field_is_resumed_with_its_default(folder: RunFolder, toy_recipe: Recipe) -> None:
    folder.save(Progress())
    saved = torch.load(folder.path / "last.pt", weights_only=True)
    recipe = json.loads(saved["recipe"])
    del recipe["reader"], recipe["input_feeding"]
    torch.save(saved | {"recipe": json.dumps(recipe)}, folder.path / "last.pt")
    assert RunFolder(folder.path, toy_recipe).open(resume=True) is not None
    with pytest.raises(DataError, match="another recipe"):
        RunFolder(folder.path, toy_recipe.replace(input_feeding=True)).open(resume=True)


def test_a_newer_versions_run_is_named(folder: RunFolder) -> None:
    folder.save(Progress())
    saved = torch.load(folder.path / "last.pt", weights_only=True)
    torch.save(saved | {"recipe": json.dumps(json.loads(saved["recipe"]) | {"newer": 1})}, folder.path / "last.pt")
    with pytest.raises(DataError, match=r"run was begun by another version of captioner: .*newer"):
        folder.open(resume=True)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file"])
def test_a_damaged_state_is_named(folder: RunFolder, content: bytes) -> None:
    (folder.path / "last.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read \S*last\.pt"):
        folder.open(resume=True)


def test_an_interrupted_save_leaves_the_one_before(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.save(PROGRESS)

    def half(_state: object, path: Path) -> None:
        path.write_bytes(b"PK half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(KeyboardInterrupt):
            folder.save(Progress())
    saved = folder.open(resume=True)
    assert saved is not None
    assert Progress(**saved["progress"]) == PROGRESS
    folder.save(Progress())
    assert not list(folder.path.glob("*.partial"))


def test_the_best_model_is_there_in_half_precision_and_in_full(
    folder: RunFolder, tiny_model: CaptionModel, tiny_info: ModelInfo
) -> None:
    folder.save_best(tiny_model, tiny_info)
    loaded, info = load_model(folder.model)
    assert info == tiny_info
    name, weights = "initial.weight", tiny_model.initial.weight
    assert torch.equal(loaded.state_dict()[name], weights.half().float())
    assert torch.equal(folder.stage_start(1)[name], weights)


def test_a_stage_starts_from_the_best_before_it_however_often_it_starts(
    folder: RunFolder, tiny_model: CaptionModel, tiny_info: ModelInfo
) -> None:
    folder.save_best(tiny_model, tiny_info)
    before = folder.stage_start(1)
    with torch.no_grad():
        other = CaptionModel(tiny_info.model)
    folder.save_best(other, tiny_info)
    assert torch.equal(folder.stage_start(1)["initial.weight"], before["initial.weight"])
    assert torch.equal(folder.stage_start(2)["initial.weight"], other.initial.weight)
