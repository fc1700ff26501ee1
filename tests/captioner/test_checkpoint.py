"""The weights in a model directory: what is saved comes back, and what does not fit is refused in plain words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from captioner.checkpoint import ModelInfo, load_model, save_model, write_info
from captioner.errors import ModelError
from captioner.model import CaptionModel


def said(model: CaptionModel) -> tuple[Tensor, Tensor]:
    """Logits and attention of a few tokens over two noisy pictures."""
    pixels = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, weights = model(model.encode(pixels), torch.tensor([[1, 5, 6], [1, 7, 4]]))
    return logits, weights


def test_a_model_comes_back_as_it_was(tiny_model: CaptionModel, tiny_info: ModelInfo, tiny_model_dir: Path) -> None:
    model, info = load_model(tiny_model_dir)
    assert info == tiny_info
    assert not model.training
    for found, expected in zip(said(model), said(tiny_model), strict=True):
        assert torch.equal(found, expected)


def test_half_precision_is_for_the_file_alone(
    tiny_model: CaptionModel, tiny_info: ModelInfo, tiny_model_dir: Path, tmp_path: Path
) -> None:
    save_model(tmp_path / "half", tiny_model, tiny_info, dtype=torch.float16)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16, torch.int64}  # int64: the norms' counters
    half, full = ((directory / "model.safetensors").stat().st_size for directory in (tmp_path / "half", tiny_model_dir))
    assert half < 0.6 * full

    model, _ = load_model(tmp_path / "half")
    found, expected = model.cells[0].weight_hh, tiny_model.cells[0].weight_hh
    assert found.dtype == torch.float32
    assert torch.equal(found, expected.half().float())
    torch.testing.assert_close(said(model)[0], said(tiny_model)[0], atol=0.05, rtol=0.05)
    assert expected.dtype == torch.float32  # the model that was saved stays as it was


def test_a_tied_matrix_is_stored_once_and_shared_again(tiny_model_dir: Path) -> None:
    assert "output.weight" not in load_file(tiny_model_dir / "model.safetensors")
    model, _ = load_model(tiny_model_dir)
    assert model.output.weight is model.embedding.weight


def test_an_untied_matrix_is_stored_itself(tiny_info: ModelInfo, tmp_path: Path) -> None:
    info = replace(tiny_info, model=tiny_info.model.replace(tied_output=False, gated_context=False))
    untied = CaptionModel(info.model)
    save_model(tmp_path, untied, info)
    model, _ = load_model(tmp_path)
    assert torch.equal(model.output.weight, untied.output.weight)
    assert not torch.equal(model.output.weight, model.embedding.weight)
    assert model.gate is None


def lacking(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("cells.")}


WEIGHTS: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "missing": (lacking, r"it lacks cells\.0\.bias_hh, cells\.0\.bias_ih, cells\.0\.weight_hh and 1 more$"),
    "extra": (lambda state: state | {"head.bias": torch.zeros(1)}, r"it has unknown head\.bias$"),
    "misshapen": (lambda state: state | {"output.bias": torch.zeros(3)}, r"output\.bias is \(3,\), expected \(14,\)$"),
    "both": (lambda state: lacking(state) | {"head.bias": torch.zeros(1)}, r"it lacks .*; it has unknown head"),
    "tied, yet stored": (lambda state: state | {"output.weight": torch.zeros(14, 8)}, r"has unknown output\.weight"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_do_not_fit_are_refused(
    tiny_info: ModelInfo, tiny_model_dir: Path, tmp_path: Path, case: str
) -> None:
    change, message = WEIGHTS[case]
    write_info(tmp_path, tiny_info)
    save_file(change(load_file(tiny_model_dir / "model.safetensors")), tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path)
    assert caught.value.code == "model_mismatch"
    assert str(tmp_path / "model.safetensors") in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"no weights", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_without_weights_is_refused(tiny_info: ModelInfo, tmp_path: Path, content: bytes | None) -> None:
    write_info(tmp_path, tiny_info)
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_model(tmp_path)


def test_a_file_cut_short_is_broken(tiny_info: ModelInfo, tiny_model_dir: Path, tmp_path: Path) -> None:
    write_info(tmp_path, tiny_info)
    (tmp_path / "model.safetensors").write_bytes((tiny_model_dir / "model.safetensors").read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cannot read the weights") as caught:
        load_model(tmp_path)
    assert caught.value.code == "model_broken"


def test_a_file_with_zeros_in_place_of_its_end_is_refused(
    tiny_info: ModelInfo, tiny_model_dir: Path, tmp_path: Path
) -> None:
    whole = (tiny_model_dir / "model.safetensors").read_bytes()
    half = len(whole) // 2
    (tmp_path / "model.safetensors").write_bytes(whole[:half] + bytes(len(whole) - half))
    write_info(tmp_path, tiny_info)
    with pytest.raises(ModelError, match=r"are damaged: .* hold nothing but zeros"):
        load_model(tmp_path)
