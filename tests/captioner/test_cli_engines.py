"""The command and what runs the network: choosing it, exporting for it, and being told of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from installed import EACH_RUNTIME, HAS_TORCH, INSTALLED, needs_runtime, needs_torch

from captioner.cli import main
from captioner.graphs import FOLDER


@pytest.fixture
def model(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


@pytest.mark.parametrize("engine", [pytest.param("torch", marks=needs_torch), *EACH_RUNTIME])
def test_a_picture_is_captioned_by_the_engine_asked_for(
    tiny_model_dir: Path, photo: Path, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["caption", str(photo), "--model", str(tiny_model_dir)]
    assert main(command) == 0
    expected = capsys.readouterr().out
    assert main([*command, "--engine", engine, "--threads", "1"]) == 0
    assert capsys.readouterr().out == expected


def test_an_unknown_engine_is_wrong_usage(
    tiny_model_dir: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", str(photo), "--model", str(tiny_model_dir), "--engine", "steam"]) == 2
    assert "choose one of auto, torch" in capsys.readouterr().err


@needs_torch
def test_exported_graphs_lie_beside_the_model(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for names in ([str(model)], [str(model)] * 2):  # the second time they are there
        assert main(["export", *names]) == 0
        name, place = capsys.readouterr().out.strip().split("\t")
        assert name == str(model)
        assert Path(place).parent == model / FOLDER
        assert (Path(place) / "decoder.onnx").is_file()


@needs_torch
def test_what_takes_long_is_told(model: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(model)]
    assert main(command) == 0
    assert f"captioner: Exporting the graphs of {model}" in capsys.readouterr().err
    assert main(command) == 0
    assert not capsys.readouterr().err


@needs_torch
def test_exporting_where_nothing_can_be_written_says_so(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / FOLDER).write_text("in the way")
    assert main(["export", str(model)]) == 1
    assert f"captioner: cannot write beside the model {model}" in capsys.readouterr().err


@needs_runtime
def test_info_tells_what_runs_the_model_and_why(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("engine"))
    assert line.split(maxsplit=1)[1].startswith(f"{INSTALLED[0]} fp32, ")
    assert ": the first that works here" in line


@needs_runtime
def test_info_tells_what_another_choice_would_run(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model), "--engine", INSTALLED[0], "--threads", "1"]) == 0
    assert f"engine       {INSTALLED[0]} fp32, 1 thread: asked for\n" in capsys.readouterr().out
    for refused, message in ((["--precision", "fp8"], "unknown precision"), (["--threads", "1", "--json"], "--json")):
        assert main(["info", str(model), *refused]) == 2
        told = capsys.readouterr()
        assert message in told.err
        assert not told.out


def test_info_tells_of_a_model_that_nothing_can_run(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "model.safetensors").write_bytes(b"broken")
    assert main(["info", str(model)]) == 0
    reason = "cannot read the weights" if HAS_TORCH else "the graphs of"  # these belong to other weights
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("engine"))
    assert line.split(maxsplit=1)[1].startswith("none: ")
    assert reason in line
