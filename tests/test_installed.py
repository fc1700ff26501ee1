"""Tests that need an engine are known by what they import, and left out where it is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from installed import TESTS, TORCH, needed
from test_without_torch import OF_TORCH
from without import link_commands

ROOT = TESTS.parent

HIDDEN = """
import sys
for name in sys.argv.pop(1).split():
    sys.modules[name] = None  # as if it were not installed
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def pytest_without(packages: str, *arguments: str) -> str:
    """What pytest prints where these packages are missing."""
    command = [sys.executable, "-c", HIDDEN, packages, "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_tests_are_collected_without_torch() -> None:
    told = pytest_without(" ".join(TORCH), "--collect-only", "-q")
    assert "tests/captioner/test_config.py::" in told
    assert "tests/service/test_server.py::" in told
    assert "tests/captioner/test_model.py is left out; not installed: torch" in told
    assert "tests/training is left out; not installed: torch" in told
    assert "tests/captioner/test_model.py::" not in told


def test_what_needs_no_torch_runs_without_it(tmp_path: Path) -> None:
    files = ["tests/captioner/test_config.py", "tests/captioner/test_graphs.py"]
    told = pytest_without(" ".join(TORCH), *files, f"--basetemp={tmp_path / 'tests'}")
    assert int(re.findall(r"(\d+) passed", told)[-1]) > 20
    assert "not installed: onnx, torch, torchvision; without it this needs --prepared=FOLDER" in told


def test_what_the_library_needs_is_known() -> None:
    """The modules that import torch as they are imported are those that fail without it."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.glob("captioner/**/*.py")}
    assert {name for name, path in files.items() if needed(path).intersection(TORCH)} == OF_TORCH
    assert needed(files["captioner.engines.onnxruntime_graph"]) == {"onnxruntime"}
    assert needed(files["captioner.engines.openvino_graph"]) == {"openvino"}


@pytest.mark.parametrize(
    ("text", "packages"),
    [
        ("import torch", {"torch"}),
        ("import torch.nn as nn, json", {"torch"}),
        ("from torchvision.models import get_model", {"torchvision"}),
        ("from safetensors.torch import load_file", {"torch"}),
        ("import safetensors.torch", {"torch"}),
        ("from captioner.model import CaptionModel", {"torch"}),
        ("from captioner import export", {"onnx", "torch"}),
        ("from helper import something", {"openvino"}),
        ("if True:\n    import onnxruntime", {"onnxruntime"}),
        ("class A:\n    import onnx", {"onnx"}),
        ("import captioner, json", set()),
        ("import torchmetrics, my.torch_things", set()),
        ("def test():\n    import torch", set()),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None", set()),
        ("if TYPE_CHECKING:\n    import torch", set()),
        ("", set()),
    ],
)
def test_only_what_is_imported_with_a_file_is_needed(tmp_path: Path, text: str, packages: set[str]) -> None:
    (tmp_path / "helper.py").write_text("import second")
    (tmp_path / "second.py").write_text("import helper\nimport openvino")  # a circle ends
    (tmp_path / "test_it.py").write_text(text)
    assert needed(tmp_path / "test_it.py") == packages


def test_the_commands_of_another_environment_run_its_python(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours" / "bin", tmp_path / "theirs" / "bin"
    for folder in (ours, theirs):
        folder.mkdir(parents=True)
        (folder / "python").write_text(f"#!/bin/sh\necho {folder.parent.name}")
    (ours / "tool").write_text(f"#!{ours}/python\n")
    (ours / "compiled").write_bytes(b"\x7fELF" + bytes(str(ours), "utf-8"))
    for path in (*ours.iterdir(), theirs / "python"):
        path.chmod(0o755)
    link_commands(ours, theirs)
    assert (theirs / "tool").read_text() == f"#!{theirs}/python\n"
    assert (theirs / "tool").stat().st_mode & 0o111
    assert (theirs / "compiled").samefile(ours / "compiled")
    assert (theirs / "python").read_text().endswith("theirs")
    assert (ours / "tool").read_text() == f"#!{ours}/python\n"
