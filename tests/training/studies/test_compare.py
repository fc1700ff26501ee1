"""The command that runs studies and prints their tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from toy_study import write_study

from training.compare import Workshop, main
from training.studies.study import load_study
from training.studies.table import make_table, read_results


def command(study: str, settings: Sequence[str], *arguments: str) -> list[str]:
    return ["--study", study, *(part for setting in settings for part in ("--set", setting)), *arguments]


def test_command_runs_and_prints_the_table(
    whole: Workshop,
    settings: list[str],
    toy_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no Java there, and METEOR takes seconds to start
    path, output = write_study(tmp_path), tmp_path / "out"
    places = ["--data", str(toy_data), "--output", str(output), "--cache", str(whole.cache)]
    assert main(command(path, settings, *places, "--only", "greedy", "--seeds", "1")) == 0
    shown = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith(("Toys", "base", "greedy", "the"))
    ]
    assert shown[:-1] == ["Toys: 2 runs", "base-1: as it is", "greedy-1: beam 1"]
    assert shown[-1] == f"the figures are in {output / 'results'}"
    assert sorted(path.name for path in (output / "results").iterdir()) == ["base-1.json", "greedy-1.json"]
    figures, theirs = (
        json.loads((place / "results" / "greedy-1.json").read_text()) for place in (output, whole.output)
    )
    assert figures["scores"] == theirs["scores"]

    assert main(command(path, settings, "--output", str(output), "--table")) == 0
    study = load_study(path, settings)
    assert capsys.readouterr().out == make_table(study, read_results(study, output / "results"), "results")


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"--study": "levrs"}, 2, "no study 'levrs': give a TOML file or one of family, levers"),
        ({"--only": "lstm"}, 2, "has no variant 'lstm'"),
        ({"--seeds": "-1"}, 2, "seeds must be different whole numbers"),
        ({"--set": "sede=1"}, 2, "Recipe has no field 'sede'"),
        ({"--data": "nowhere"}, 1, "base-1: nowhere does not exist"),
    ],
)
def test_command_fails_with_a_sentence(
    toy_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    code: int,
    message: str,
) -> None:
    options = {"--study": write_study(tmp_path), "--data": str(toy_data), "--output": str(tmp_path / "out")}
    options |= {"--only": "base", "--seeds": "1"} | changes
    assert main([f"{name}={value}" for name, value in options.items()]) == code
    error = capsys.readouterr().err
    assert error.startswith("comparison: ")
    assert message in error


def test_command_refuses_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--study", "levers"], ["--study", "levers", "--data", str(tmp_path)]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "usage: python -m training.compare" in capsys.readouterr().err
