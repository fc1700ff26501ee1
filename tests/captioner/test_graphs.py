"""Exported graphs: where they are kept, that they are whole, and that they belong to the model."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import platformdirs
import pytest
from installed import needs_torch

from captioner import ModelError, graphs
from captioner.checkpoint import CONFIG_NAME, WEIGHTS_NAME
from captioner.graphs import ANSWER_NAME, FILES, FOLDER, KEPT, cache_directory, graphs_of, make


@pytest.fixture
def model(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / FOLDER


def pretend(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Export nothing but a file; returns the list of what was exported."""
    exported = []

    def run(model: Path, directory: Path) -> object:
        exported.append(model)
        for name in FILES:
            (directory / name).write_text("")
        return type("Done", (), {"returncode": 0})()

    monkeypatch.setattr(graphs, "_run_export", run)
    monkeypatch.setattr(graphs, "require_torch", lambda _model: None)
    return exported


@needs_torch
def test_the_first_use_exports_and_the_next_ones_find(model: Path, cache: Path) -> None:
    with graphs_of(model) as first:
        names = {path.name for path in first.iterdir()}
        assert first.parent == cache
        assert names == {"encoder.onnx", "decoder.onnx", "decoder.int8.onnx", ANSWER_NAME} == set(FILES)
    written = (first / "encoder.onnx").stat().st_mtime_ns
    with graphs_of(model) as second:
        assert second == first
        assert (second / "encoder.onnx").stat().st_mtime_ns == written
    assert {path.name for path in cache.iterdir()} == {first.name, ".lock"}  # nothing is left half done


@needs_torch
def test_others_may_read_what_was_exported(model: Path, cache: Path) -> None:
    with graphs_of(model) as directory:
        assert directory.stat().st_mode & 0o755 == 0o755
        assert all(path.stat().st_mode & 0o444 == 0o444 for path in directory.iterdir())


def test_graphs_beside_the_model_come_first(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    made = make(model, model / FOLDER)
    with graphs_of(model) as found:
        assert found == made
    assert not cache.exists()


@pytest.mark.parametrize("part", ["weights", "architecture", "pictures"])
def test_a_changed_model_has_other_graphs(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    exported = pretend(monkeypatch)
    with graphs_of(model) as before:
        pass
    if part == "weights":
        weights = bytearray((model / WEIGHTS_NAME).read_bytes())
        weights[-1] ^= 1
        (model / WEIGHTS_NAME).write_bytes(weights)
    else:
        config = json.loads((model / CONFIG_NAME).read_text())
        config["model" if part == "architecture" else "image"]["attention" if part == "architecture" else "fit"] = "x"
        (model / CONFIG_NAME).write_text(json.dumps(config))
    with graphs_of(model) as after:
        assert after != before
    assert len(exported) == 2


def test_what_does_not_concern_the_network_changes_nothing(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = pretend(monkeypatch)
    with graphs_of(model) as before:
        pass
    config = json.loads((model / CONFIG_NAME).read_text())
    config["figures"] = {}
    (model / CONFIG_NAME).write_text(json.dumps(config))
    with graphs_of(model) as after:
        assert after == before
    assert len(exported) == 1


@needs_torch
def test_a_model_that_cannot_be_exported_says_why_and_leaves_nothing(model: Path, cache: Path) -> None:
    (model / WEIGHTS_NAME).write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"cannot be exported: cannot read the weights"), graphs_of(model):
        pass
    assert {path.name for path in cache.iterdir()} == {".lock"}


def test_where_nothing_can_be_kept_they_last_as_long_as_they_are_used(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(monkeypatch)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING), graphs_of(model) as directory:
        assert (directory / ANSWER_NAME).is_file()
    assert not directory.exists()
    assert "captioner export" in caplog.text
    assert "CAPTIONER_CACHE" in caplog.text


def _use(model: Path, cache: str) -> None:
    os.environ["CAPTIONER_CACHE"] = cache
    with graphs_of(model) as directory:
        print((directory / "decoder.onnx").stat().st_ino, flush=True)


@needs_torch
def test_processes_that_start_together_export_once(model: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_use, args=(model, str(cache.parent))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(set(capfd.readouterr().out.split())) == 1


def test_what_was_lost_in_part_is_exported_again(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = pretend(monkeypatch)
    with graphs_of(model) as directory:
        (directory / ANSWER_NAME).unlink()
    with graphs_of(model) as directory:
        assert (directory / ANSWER_NAME).is_file()
    assert len(exported) == 2


def test_a_model_that_changes_while_it_is_exported_is_not_kept(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    run = graphs._run_export

    def change(model: Path, directory: Path) -> object:
        (model / WEIGHTS_NAME).write_bytes((model / WEIGHTS_NAME).read_bytes()[:-1] + b"x")
        return run(model, directory)

    monkeypatch.setattr(graphs, "_run_export", change)
    with pytest.raises(ModelError, match="was changed while it was exported"), graphs_of(model):
        pass
    assert {path.name for path in cache.iterdir()} == {".lock"}


@needs_torch
def test_code_in_the_working_directory_is_not_run(
    model: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("captioner.py", "torch.py"):
        (tmp_path / name).write_text("raise SystemExit('the code of a stranger')")
    monkeypatch.chdir(tmp_path)
    with graphs_of(model) as directory:
        assert (directory / "encoder.onnx").stat().st_size


def test_a_user_without_a_home_uses_the_graphs_beside_the_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    made = make(model, model / FOLDER)
    monkeypatch.delenv("CAPTIONER_CACHE")

    def homeless(*_: object, **__: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_cache_path", homeless)
    with graphs_of(model) as found:
        assert found == made
    shutil.rmtree(made)
    with graphs_of(model) as found:  # in a temporary directory
        assert found != made


def test_what_nobody_used_for_long_is_forgotten(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    old, recent = cache / "old", cache / "recent"
    for directory in (old, recent):
        directory.mkdir(parents=True)
        (directory / ANSWER_NAME).write_text("")
    os.utime(old, times=(0, time.time() - (KEPT + 1) * 86400))
    with graphs_of(model) as made:
        assert {path.name for path in cache.iterdir()} == {made.name, "recent", ".lock"}


def test_the_cache_is_where_the_system_keeps_such_things(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CAPTIONER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = cache_directory()
    assert found.name == FOLDER
    assert found.parent.name == "captioner"
