"""What the tests of batch runs share."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import running

from captioner.checkpoint import read_info, write_info

Command = Callable[..., int]


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs remember here stays away from what the user's remember."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def batch(first: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """``captioner batch`` with the tiny model, in a folder of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *arguments: running.main([*first, *arguments])


@pytest.fixture
def first(tiny_model_dir: Path) -> list[object]:
    """What the command begins with: the tiny model, and the same arithmetic in every process."""
    return ["--model", tiny_model_dir, "--device", "cpu", "--threads", 1, "--batch-size", 4]


@pytest.fixture
def other(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """The same network by another name, for larger pictures and with other habits."""
    directory = shutil.copytree(tiny_model_dir, tmp_path / "other")
    info = read_info(directory)
    write_info(directory, dataclasses.replace(info, name="other", decoding=info.decoding.replace(max_length=4)))
    return directory
