"""What older versions wrote: it loads and says what it always said; what this version cannot know is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import captioner
from captioner.checkpoint import ModelInfo, bundled_models, load_model, read_info, resolve, save_model
from captioner.errors import ModelError
from captioner.formats import FORMAT_VERSION, upgrade_config, upgrade_weights
from captioner.model import CaptionModel

YOUNGER = ("cell", "layers", "attention", "attend", "sentinel", "image_input")  # than version 1


def write_as_version_1(directory: Path, model: CaptionModel, info: ModelInfo) -> None:
    """A model directory as captioner wrote it when its format had version 1."""
    save_model(directory, model, info)
    path = directory / "config.json"
    values = json.loads(path.read_text())
    values["format_version"] = 1
    for name in YOUNGER:
        del values["model"][name]
    if values["model"]["reader"] == "none":
        values["model"]["reader"] = "projection"
    path.write_text(json.dumps(values))
    weights = load_file(directory / "model.safetensors")
    save_file(
        {name.replace("cells.0.", "cell."): tensor for name, tensor in weights.items()}, directory / "model.safetensors"
    )


def said(model: CaptionModel) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, weights = model(model.encode(pixels), torch.tensor([[1, 5, 6], [1, 7, 4]]))
    return logits, weights


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reader": "pyramid", "attend": "after", "input_feeding": True, "tied_output": False, "output_size": 9},
    ],
    ids=["attends before", "image2speech"],
)
def test_a_model_of_version_1_says_what_it_said(tiny_info: ModelInfo, tmp_path: Path, changes: dict[str, Any]) -> None:
    torch.manual_seed(3)
    info = replace(tiny_info, model=tiny_info.model.replace(**changes))
    model = CaptionModel(info.model).eval()
    write_as_version_1(tmp_path, model, info)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["model"]["reader"] in ("projection", "pyramid")
    assert "cell.weight_hh" in load_file(tmp_path / "model.safetensors")

    back, told = load_model(tmp_path)
    assert told == info
    for found, expected in zip(said(back), said(model), strict=True):
        assert torch.equal(found, expected)

    save_model(tmp_path / "again", back, told)
    assert json.loads((tmp_path / "again" / "config.json").read_text())["format_version"] == FORMAT_VERSION
    assert load_model(tmp_path / "again")[1] == info


def test_input_feeding_of_version_1_attends_after(tiny_info: ModelInfo) -> None:
    fed = replace(tiny_info, model=tiny_info.model.replace(attend="after", input_feeding=True))
    values = fed.to_dict() | {"format_version": 1}
    for name in YOUNGER:
        del values["model"][name]
    assert ModelInfo.from_dict(values) == fed
    assert "attend" not in values["model"], "what was given is not to be changed"
    values["model"]["input_feeding"] = False
    assert ModelInfo.from_dict(values).model.attend == "before"


def test_what_is_of_this_version_stays_as_it_is(tiny_info: ModelInfo, tiny_model: CaptionModel) -> None:
    assert upgrade_config(tiny_info.to_dict()) == tiny_info.to_dict()
    state = tiny_model.state_dict()
    assert list(upgrade_weights(state)) == list(state)


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, "1", None])
def test_other_versions_are_refused_and_the_known_ones_told(tiny_info: ModelInfo, tmp_path: Path, version: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny_info.to_dict() | {"format_version": version}))
    message = f"has format version {version!r}, this captioner reads 1 to 2: install a matching captioner or train"
    with pytest.raises(ModelError, match=message) as caught:
        read_info(tmp_path)
    assert caught.value.code == "model_mismatch"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "impossible value"),
        ({"model": {"reader": "projection"}}, "ModelConfig is incomplete: .*vocabulary_size"),
        ({"model": {"vocabulary_size": 14, "heads": 8}}, "ModelConfig has no field 'heads'"),
        ({"vocabulary": 7}, "impossible value"),
        ({"licence": "none"}, "unknown fields: licence"),
    ],
)
def test_what_is_wrong_in_version_1_is_told_as_ever(tiny_info: ModelInfo, change: dict[str, Any], message: str) -> None:
    """Its version is not what is wrong with it."""
    with pytest.raises(ModelError, match=message):
        ModelInfo.from_dict(tiny_info.to_dict() | {"format_version": 1} | change)


def test_a_projection_is_of_version_1_alone(tiny_info: ModelInfo) -> None:
    values = tiny_info.to_dict()
    values["model"]["reader"] = "projection"
    with pytest.raises(ModelError, match="reader must be one of none, bilstm, pyramid, not 'projection'"):
        ModelInfo.from_dict(values)


@pytest.mark.parametrize("name", bundled_models())
def test_a_bundled_model_loads_and_captions_whatever_its_version(name: str) -> None:
    written = json.loads((resolve(name) / "config.json").read_text(encoding="utf-8"))
    assert 1 <= written["format_version"] <= FORMAT_VERSION
    model = captioner.load(name, device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    caption = model(Image.fromarray(noise))
    assert len(caption.tokens) > 2
    assert model.info.to_dict()["format_version"] == FORMAT_VERSION
    known = model.info.model.to_dict()
    for field, value in written["model"].items():
        assert known[field] == ("none" if value == "projection" else value), field
