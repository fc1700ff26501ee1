"""What runs a model, and why: the choice of an engine, and what is told where one is not to be had."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from installed import EACH_RUNTIME, INSTALLED, needs_both_runtimes, needs_runtime, needs_torch
from PIL import Image

import captioner
from captioner import DependencyError, ModelError, OptionError, loading, runtimes
from captioner.graphs import FOLDER, make
from captioner.loading import ENGINES, TORCH, load
from captioner.runtimes import RUNTIMES


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make packages look as if they were not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name in packages else real(name))


@pytest.mark.parametrize("engine", [pytest.param(TORCH, marks=needs_torch), *EACH_RUNTIME])
def test_an_engine_that_is_asked_for_runs_and_says_the_same(
    tiny_model_dir: Path, tiny_captioner: captioner.Captioner, picture: Image.Image, engine: str
) -> None:
    model = load(tiny_model_dir, engine=engine, threads=1)
    assert model.engine.name.startswith(engine)
    assert model.reason == "asked for"
    expected = tiny_captioner.candidates(picture, n_best=3)
    for found, other in zip(model.candidates(picture, n_best=3), expected, strict=True):
        assert found.text == other.text
        assert found.score == pytest.approx(other.score, abs=1e-4)
    assert ("auto", "torch", "mixed", *RUNTIMES) == ENGINES


@needs_runtime
def test_by_itself_it_takes_the_first_runtime_that_is_installed(tiny_model_dir: Path) -> None:
    model = load(tiny_model_dir)
    assert model.engine.name.startswith(INSTALLED[0])
    reason, *others = model.reason.split("; ")
    assert reason == "the first that works here"
    assert len(others) == list(RUNTIMES).index(INSTALLED[0])  # those before it, which are not installed


@needs_both_runtimes
def test_what_is_not_installed_is_passed_over_and_told(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, INSTALLED[0])
    model = load(tiny_model_dir)
    assert model.engine.name.startswith(INSTALLED[1])
    assert f"engine {INSTALLED[0]} is not installed" in model.reason
    with pytest.raises(DependencyError, match=rf"pip install 'captioner\[{INSTALLED[0]}\]'"):
        load(tiny_model_dir, engine=INSTALLED[0])


def test_a_precision_that_no_engine_here_offers_is_told(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, *RUNTIMES)
    with pytest.raises(DependencyError, match=r"engine openvino is not installed"):
        load(tiny_model_dir, precision="int8")


@needs_both_runtimes
def test_in_8_bits_each_part_is_run_by_what_is_fastest(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(tiny_model_dir, precision="int8").engine.name.startswith("mixed int8")
    for hidden, other in (("openvino", "onnxruntime"), ("onnxruntime", "openvino")):
        with monkeypatch.context() as patched:
            hide(patched, hidden)
            model = load(tiny_model_dir, precision="int8")
            assert model.engine.name.startswith(f"{other} int8")
            assert "engine mixed is not installed" in model.reason
            with pytest.raises(DependencyError, match=rf"pip install 'captioner\[{hidden}\]'"):
                load(tiny_model_dir, engine="mixed", precision="int8")


@needs_torch
def test_without_any_runtime_torch_serves(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, *RUNTIMES)
    model = load(tiny_model_dir)
    assert model.engine.name.startswith(TORCH)
    assert "not installed" in model.reason


@needs_torch
@needs_runtime
def test_a_runtime_that_computes_wrongly_is_passed_over(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtimes, "TOLERANCES", dict.fromkeys(runtimes.TOLERANCES, -1.0))  # nothing is right enough
    model = load(tiny_model_dir)
    assert model.engine.name.startswith(TORCH)
    assert "computes summary wrongly here" in model.reason
    assert "computes summary wrongly here" in caplog.text
    with pytest.raises(ModelError, match="wrongly"):
        load(tiny_model_dir, engine=INSTALLED[0])


@needs_torch
@pytest.mark.parametrize("engine", EACH_RUNTIME)
def test_damaged_graphs_are_a_model_error(tiny_model_dir: Path, tmp_path: Path, engine: str) -> None:
    model = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    made = make(model, model / FOLDER)
    (made / "encoder.onnx").write_bytes((made / "encoder.onnx").read_bytes()[:1000])
    with pytest.raises(ModelError, match=f"engine {engine} cannot run 'tiny'") as caught:
        load(model, engine=engine)
    assert f"If a file in {made} is damaged, remove that folder" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load(model).engine.name.startswith(TORCH)


@needs_torch
@needs_both_runtimes
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_weights_that_are_damaged_are_told_once(
    tiny_model_dir: Path, tmp_path: Path, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot read the weights") as caught:
        load(model, precision=precision)
    assert str(caught.value).count("cannot read the weights") == 1
    assert caplog.text.count("cannot read the weights") == 1


@needs_torch
def test_torch_has_as_many_threads_as_are_asked_for(tiny_model_dir: Path) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        load(tiny_model_dir, engine=TORCH)
        assert torch.get_num_threads() == before
        load(tiny_model_dir, engine=TORCH, threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@needs_torch
@pytest.mark.skipif("openvino" not in INSTALLED, reason="openvino is not installed")
def test_a_cache_that_cannot_be_written_is_read(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.access
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path))
    made = make(tiny_model_dir, tmp_path / FOLDER)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    load(tiny_model_dir, engine="openvino")
    assert not (made / "compiled").exists()
    monkeypatch.undo()
    monkeypatch.setenv("CAPTIONER_CACHE", str(tmp_path))
    load(tiny_model_dir, engine="openvino")
    assert (made / "compiled").is_dir()


@needs_torch
def test_an_accelerator_is_for_torch(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_accelerator", lambda: True)
    if INSTALLED:
        assert "int8" in load(tiny_model_dir, precision="int8").engine.name  # which torch has not
    if "openvino" in INSTALLED:
        assert load(tiny_model_dir, precision="bf16", device="cpu").engine.name.startswith("openvino bf16")
    model = load(tiny_model_dir)
    assert model.engine.name.startswith(TORCH)
    assert model.reason == "there is an accelerator"
    assert load(tiny_model_dir, device="cpu").engine.name.startswith(INSTALLED[0] if INSTALLED else TORCH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "steam"}, "unknown engine 'steam'; choose one of auto, torch"),
        ({"precision": "int3"}, "unknown precision 'int3'"),
        ({"engine": "onnxruntime", "precision": "bf16"}, "onnxruntime computes in fp32 or int8, not in bf16"),
        ({"engine": "torch", "precision": "int8"}, "torch computes in fp32 or bf16, not in int8"),
        ({"engine": "openvino", "device": "cuda"}, "openvino runs on the CPU alone"),
        ({"engine": "mixed"}, "mixed computes in int8, not in fp32"),
        ({"engine": "mixed", "precision": "int8", "device": "cuda"}, "mixed runs on the CPU alone"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"threads": 1.5}, "threads must be at least 1, not 1.5"),
        ({"threads": "2"}, "threads must be at least 1, not '2'"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny_model_dir: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load(tiny_model_dir, **options)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["torchvision"] = None
import captioner
model = captioner.load(sys.argv[1])
print(model.engine.name.split()[0], model(sys.argv[2]).text)
"""

HIDDEN = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name.startswith("torch") else find(name)
"""


def run(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


@needs_runtime
def test_an_exported_model_captions_without_torch(tiny_model_dir: Path, photo: Path) -> None:
    expected = load(tiny_model_dir)(photo).text  # exports it, unless that was done before
    done = run(WITHOUT_TORCH, tiny_model_dir, photo)
    assert done.stdout == f"{INSTALLED[0]} {expected}\n", done.stderr


@needs_torch
@needs_runtime
def test_nothing_imports_torch_where_it_is_there(tiny_model_dir: Path, photo: Path) -> None:
    load(tiny_model_dir)
    code = WITHOUT_TORCH.replace('sys.modules["torch"] = sys.modules["torchvision"] = None', "")
    done = run(f"{code}\nprint([name for name in sys.modules if name.startswith('torch')])", tiny_model_dir, photo)
    assert done.stdout.endswith("\n[]\n"), done.stderr


@needs_runtime  # or else it is told to install one
def test_without_torch_and_graphs_it_is_told_what_to_do(tiny_model_dir: Path, photo: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model_dir, tmp_path / "tiny")
    done = run(HIDDEN + WITHOUT_TORCH, tmp_path / "tiny", photo, CAPTIONER_CACHE=str(tmp_path))
    assert "DependencyError" in done.stderr
    assert "captioner export" in done.stderr
    assert "captioner[torch]" in done.stderr


@pytest.mark.skipif("openvino" not in INSTALLED, reason="openvino is not installed")
@pytest.mark.skipif(not hasattr(signal, "SIGTERM") or os.name == "nt", reason="needs the signals of Unix")
def test_a_signal_does_no_harm_once_a_model_is_gone(tiny_model_dir: Path) -> None:
    code = """
import gc, os, signal, sys
import captioner
model = captioner.load(sys.argv[1], engine="openvino")
del model
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("heard", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_model_dir)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
