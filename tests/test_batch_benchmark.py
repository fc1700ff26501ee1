"""What measures batch runs measures whole ones, and what kills them notices what they leave."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import batch
import kill
import pytest

from captioner.batch.outputs.tables import JsonLines


def test_the_benchmark_tells_rates_and_what_the_command_says(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    flags = ["--pictures", "24", "--size", "40x30", "--turns", "2", "--turn", "16", "--batch-size", "8"]
    monkeypatch.setattr(sys, "argv", ["batch.py", *flags, "--model", str(tiny_model_dir), "--json", str(report)])
    batch.main()
    printed = capsys.readouterr().out
    assert "24 JPEGs made up, 40x30" in printed
    assert "the command, on all of them: 24 captioned, 0 failed" in printed
    values = json.loads(report.read_text(encoding="utf-8"))
    assert len(values["turns"]) == 2
    assert all(turn["batch"] > 0 and turn["alone"] > 0 and 0 < turn["busy"] < 1 for turn in values["turns"])


def test_the_benchmarks_pictures_all_differ(tmp_path: Path) -> None:
    arguments = argparse.Namespace(size="20x10", images=None, pictures=300)
    batch.make_pictures(tmp_path / "photos", arguments)
    assert len({path.read_bytes() for path in (tmp_path / "photos").iterdir()}) == 300


@pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of Unix")
@pytest.mark.parametrize("kind", ["jsonl", "tar to txt"])
def test_killed_runs_leave_no_trace(tiny_model_dir: Path, tmp_path: Path, kind: str) -> None:
    kill.prepare(tmp_path / "source", 60)
    arguments = argparse.Namespace(model=str(tiny_model_dir), batch_size=4, seed=1, kills=2)
    result = kill.try_kind(arguments, kind, tmp_path / "source", tmp_path / "here")
    assert (result.kills, result.differences) == (2, 0)
    assert result.ends >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of Unix")
def test_a_trace_is_noticed(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill.prepare(tmp_path / "source", 60)
    arguments = argparse.Namespace(model=str(tiny_model_dir), batch_size=4, seed=1, kills=0)
    real = kill.compare

    def spoilt(code: int, folder: Path, expected: dict[str, bytes], result: kill.Result) -> None:
        table = JsonLines(folder / "out.jsonl")
        table.write([line.text for entry in table.entries() for line in entry.lines][1:])
        real(code, folder, expected, result)

    monkeypatch.setattr(kill, "compare", spoilt)
    assert kill.try_kind(arguments, "jsonl", tmp_path / "source", tmp_path / "here").differences == 1
