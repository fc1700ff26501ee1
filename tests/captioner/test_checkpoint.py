"""A model directory: what is saved comes back, and what does not fit is refused in plain words."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from captioner import checkpoint
from captioner.checkpoint import (
    ModelInfo,
    bundled_models,
    load_model,
    read_info,
    resolve,
    save_model,
    write_info,
)
from captioner.errors import ModelError
from captioner.model import CaptionModel
from captioner.tokens import Vocabulary


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


# config.json


def test_the_configuration_reads_well_and_keeps_every_letter(tiny_info: ModelInfo, tmp_path: Path) -> None:
    info = replace(tiny_info, name="wörter", description='Sätze über „Bilder".', provenance={"images": {"train": 2}})
    write_info(tmp_path, info)
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert "wörter" in text
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("{", "}")
    for line, name in zip(lines[1:-1], info.to_dict(), strict=True):  # one line a field
        assert line.startswith(f'  "{name}": ')
    assert json.loads(text) == json.loads(json.dumps(info.to_dict()))
    assert read_info(tmp_path) == info


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda values: values.pop(name)


def put(name: str, value: object, field: str = "") -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        (values[field] if field else values)[name] = value

    return change


REFUSED: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (without("format"), "not the config.json of a captioner model"),
    (put("format", "gltf"), "not the config.json of a captioner model"),
    *(
        (put("format_version", version), f"has format version {version}, this captioner reads 1 to 2: install")
        for version in (0, 3)
    ),
    (without("format_version"), "has format version None"),
    *((without(name), f"config.json lacks '{name}'") for name in ("name", "model", "vocabulary", "tokenizer", "image")),
    *((without(name), f"lacks '{name}'") for name in ("decoding", "description", "provenance", "figures")),
    (put("licence", "none"), "unknown fields: licence"),
    (put("vocabulary", ["<pad>", "<bos>", "<eos>", "<unk>", "a"]), "vocabulary has 5 tokens .* expects 14"),
    (put("vocabulary", ["a", "b"]), "must start with <pad>"),
    (put("vocabulary", 7), "impossible value"),
    (put("tokenizer", "morse"), "unknown tokenizer 'morse'; this version has words, symbols, characters"),
    (put("hidden_size", 0, "model"), r"impossible value: ModelConfig\.hidden_size must be"),
    (put("heads", 8, "model"), "ModelConfig has no field 'heads'"),
    (put("model", {}), "ModelConfig is incomplete: .*vocabulary_size"),
    (put("model", None), "impossible value"),
    (put("image", []), "impossible value"),
    (put("fit", "fill", "image"), "impossible value: ImageConfig.fit must be stretch or crop"),
    (put("mean", 0.5, "image"), "ImageConfig is incomplete"),
    (put("beam_size", 0, "decoding"), "impossible value: beam_size must be"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_a_configuration_that_cannot_be_is_refused(
    tiny_info: ModelInfo, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    values = copy.deepcopy(tiny_info.to_dict())
    change(values)
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        read_info(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot read"),
        (b"", "cannot read"),
        (b"\xff\xfe", "cannot read"),
        (b"[1, 2]", "does not hold a JSON object"),
        (b"7", "does not hold a JSON object"),
        (b"{}", "not the config.json of a captioner model"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_info(tmp_path)
    assert caught.value.code in ("model_broken", "model_mismatch")


def test_a_vocabulary_of_another_size_never_comes_to_be(tiny_info: ModelInfo) -> None:
    with pytest.raises(ModelError, match="5 tokens but the architecture expects 14") as caught:
        replace(tiny_info, vocabulary=Vocabulary.build([["a"]]))
    assert caught.value.code == "model_mismatch"


def test_reading_what_a_model_is_needs_no_torch(tiny_model_dir: Path) -> None:
    program = (
        "import sys; from captioner.checkpoint import read_info; print(read_info(sys.argv[1]).name,"
        "*{'torch', 'torchvision', 'nltk'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(tiny_model_dir)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == ["tiny"]


# Weights


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


# Names and places


def test_a_directory_and_a_bundled_name_lead_to_a_model(
    tiny_info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled, mine = tmp_path / "bundled", tmp_path / "mine"
    for directory in (bundled / "words", bundled / "phones", mine):
        directory.mkdir(parents=True)
        write_info(directory, replace(tiny_info, name=directory.name))
    (bundled / "unfinished").mkdir()
    monkeypatch.setattr(checkpoint, "BUNDLED", bundled)
    assert bundled_models() == ["phones", "words"]
    assert resolve("words") == bundled / "words"
    assert resolve(mine) == mine
    assert resolve(str(mine)) == mine
    assert read_info("phones").name == "phones"
    monkeypatch.chdir(tmp_path)
    assert read_info("mine").name == "mine"

    for wrong in ("unfinished", "word", mine / "config.json", "", "../bundled/unfinished"):
        with pytest.raises(ModelError, match=r"\(phones, words\) or a directory holding config\.json") as caught:
            resolve(wrong)
        assert caught.value.code == "model_not_found"
        assert repr(str(wrong)) in str(caught.value)


def test_without_bundled_models_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "BUNDLED", tmp_path)
    assert bundled_models() == []
    with pytest.raises(ModelError, match=r"a bundled one \(none\)"):
        load_model("words")
