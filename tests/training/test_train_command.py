from __future__ import annotations

from pathlib import Path

import pytest

from training import train as module
from training.recipe import Recipe
from training.train import main


@pytest.fixture
def recipe_file(toy_recipe: Recipe, toy_weights: Path) -> str:
    """The file that the toy recipe was read from; its weights are imagenet's there."""
    return str(toy_weights.parent / "toy.toml")


def test_command_trains_and_resumes(
    recipe_file: str,
    toy_weights: Path,
    toy_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, features = tmp_path / "run", tmp_path / "cache"
    command = ["--recipe", recipe_file, "--data", str(toy_data), "--output", str(folder), "--cache", str(features)]
    command += ["--set", f"encoder_weights={toy_weights}", "--set", "stages.0.epochs=1", "--set", "stages.1.epochs=1"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "predict", interrupt)
        assert main(command) == 1
    assert "training: stopped; --resume goes on after the last evaluation" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    out = capsys.readouterr().out
    assert f"the model is in {folder / 'model'}" in out
    assert out.splitlines()[-1].startswith("best dev CIDEr ")
    assert len((folder / "history.jsonl").read_text().splitlines()) == 2
    assert [path.suffix for path in features.iterdir()] == [".npy"]
    assert main(command) == 1
    assert "holds a training run: add --resume" in capsys.readouterr().err


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"--data": "nowhere"}, 1, "training: nowhere does not exist"),
        ({"--recipe": "wrods"}, 2, "training: no recipe 'wrods'"),
        ({"--set": "sede=1"}, 2, "Recipe has no field 'sede'"),
        ({"--set": "encoder=resnet19"}, 2, "unknown encoder 'resnet19'; choose one of"),
        ({"--set": "encoder_weights=nowhere.pth"}, 1, "no encoder weights at nowhere.pth"),
        ({"--output": "{file}/run"}, 1, "Not a directory"),
    ],
)
def test_command_fails_with_a_sentence(
    recipe_file: str,
    toy_weights: Path,
    toy_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    code: int,
    message: str,
) -> None:
    options = {"--recipe": recipe_file, "--data": str(toy_data), "--output": str(tmp_path / "run")} | {
        name: value.format(file=toy_weights) for name, value in changes.items()
    }
    assert main([part for option in options.items() for part in option]) == code
    error = capsys.readouterr().err
    assert error.startswith("training: ")
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("arguments", [[], ["--recipe", "words"], ["--resume=yes"]])
def test_command_refuses_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m training.train" in capsys.readouterr().err
