"""What a model directory says of its model, and where models are found: nothing of it needs torch."""

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

from captioner import checkpoint
from captioner.checkpoint import ModelInfo, bundled_models, read_info, resolve, write_info
from captioner.errors import ModelError
from captioner.tokens import Vocabulary

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
        read_info("words")
