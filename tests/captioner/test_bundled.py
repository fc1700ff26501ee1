"""The model that comes with the package: it is there, small, described and speaks English."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

import captioner
from captioner import Captioner
from captioner.checkpoint import bundled_models, resolve
from captioner.cli import main


@pytest.fixture(scope="module")
def words() -> Captioner:
    return captioner.load("words", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def meadow() -> Image.Image:
    """A brown animal of sorts on a green meadow under a blue sky."""
    image = Image.new("RGB", (320, 240), (120, 180, 240))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 130, 320, 240), fill=(60, 150, 50))
    draw.ellipse((110, 110, 220, 170), fill=(120, 80, 40))
    draw.ellipse((200, 85, 245, 130), fill=(120, 80, 40))
    for left in (125, 145, 185, 205):
        draw.rectangle((left, 160, left + 10, 205), fill=(100, 65, 30))
    return image


def test_it_is_small_enough_to_come_along() -> None:
    assert (resolve("words") / "model.safetensors").stat().st_size <= 30_000_000


def test_it_captions_a_picture(words: Captioner, meadow: Image.Image) -> None:
    caption = words(meadow)
    assert 3 <= len(caption.tokens) < words.info.decoding.max_length
    assert set(caption.tokens) <= set(words.info.vocabulary.tokens)
    assert not {"<pad>", "<bos>", "<eos>", "<unk>"} & set(caption.tokens)
    assert re.fullmatch(r"[a-z0-9 '&#-]+", caption.text)
    assert caption.attention.shape == (len(caption.tokens), words.info.model.grid_rows, words.info.model.grid_columns)


def test_it_sees_the_picture(words: Captioner, meadow: Image.Image) -> None:
    assert words(meadow).text != words(Image.new("RGB", (320, 240), "black")).text


def test_its_figures_and_origin_are_on_record(words: Captioner) -> None:
    info = words.info
    assert info.name == "words"
    assert info.description
    scores = info.figures["dev"]["scores"]
    assert {"BLEU-4", "METEOR", "ROUGE-L", "CIDEr"} <= set(scores)
    assert scores["CIDEr"] >= 0.53
    assert scores["BLEU-4"] >= 0.21
    assert scores["METEOR"] >= 0.20
    assert info.provenance["images"]["train"] > 0
    assert info.provenance["recipe"]["name"] == "words"


def test_its_card_is_there_and_says_what_it_scores(words: Captioner) -> None:
    card = (resolve("words") / "README.md").read_text(encoding="utf-8")
    assert "CIDEr" in card
    assert "Flickr8k" in card


def test_it_is_the_default(meadow: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "words" in bundled_models()
    assert captioner.load().name == "words"
    meadow.save(tmp_path / "meadow.png")
    assert main(["caption", str(tmp_path / "meadow.png")]) == 0
    assert len(capsys.readouterr().out.split("\t")[1].split()) >= 3
