"""The models that come with the package: they are there, small, described, and speak English."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

import captioner
from captioner import Captioner
from captioner.checkpoint import bundled_models, resolve
from captioner.cli import main
from captioner.phones import check_phones

LEAST = {  # what is on record for the dev split, at the least or (PER, an error rate) at the most
    "words": {"CIDEr": 0.58, "BLEU-4": 0.23, "METEOR": 0.21, "ROUGE-L": 0.475},
    "phones": {"phone-BLEU-4": 0.48, "PER": 0.65, "CIDEr": 0.85 * 0.53},
}

pytestmark = pytest.mark.usefixtures("bundled")


@pytest.fixture(scope="module", params=sorted(LEAST))
def model(request: pytest.FixtureRequest) -> Captioner:
    return captioner.load(request.param, device="cpu", precision="fp32")


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


def test_they_are_the_bundled_ones() -> None:
    assert bundled_models() == sorted(LEAST)


def test_it_is_small_enough_to_come_along(model: Captioner) -> None:
    assert sum(path.stat().st_size for path in resolve(model.name).iterdir()) <= 30_000_000


def test_it_captions_a_picture(model: Captioner, meadow: Image.Image) -> None:
    caption = model(meadow)
    assert 3 <= len(caption.tokens) < model.info.decoding.max_length
    assert set(caption.tokens) <= set(model.info.vocabulary.tokens)
    assert not {"<pad>", "<bos>", "<eos>", "<unk>"} & set(caption.tokens)
    assert re.fullmatch(r"[a-z0-9 '&#-]+", caption.text if caption.words is None else caption.words)
    assert caption.attention.shape == (len(caption.tokens), model.info.model.grid_rows, model.info.model.grid_columns)


def test_it_sees_the_picture(model: Captioner, meadow: Image.Image) -> None:
    assert model(meadow).text != model(Image.new("RGB", (320, 240), "black")).text


def test_phones_are_phones_and_read_as_words(meadow: Image.Image) -> None:
    caption = captioner.load("phones", device="cpu")(meadow)
    assert len(check_phones(caption.tokens)) > 10
    assert caption.words
    assert len(caption.words.split()) >= 3
    assert captioner.load("words", device="cpu")(meadow).words is None


def test_its_figures_and_origin_are_on_record(model: Captioner) -> None:
    info = model.info
    assert info.description
    scores = info.figures["dev"]["scores"]
    for metric, bound in LEAST[info.name].items():
        assert scores[metric] <= bound if metric == "PER" else scores[metric] >= bound
    assert info.provenance["images"]["train"] > 0
    assert info.provenance["recipe"]["name"] == info.name


def test_its_card_tells_what_is_on_record(model: Captioner) -> None:
    card = (resolve(model.name) / "README.md").read_text(encoding="utf-8")
    scores = model.info.figures["dev"]["scores"]
    for metric in LEAST[model.name]:
        assert f"{scores[metric]:.3f}".removeprefix("0") in card, metric
    assert "Flickr8k" in card


def test_words_is_the_default(meadow: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert captioner.load().name == "words"
    meadow.save(tmp_path / "meadow.png")
    assert main(["caption", str(tmp_path / "meadow.png")]) == 0
    assert len(capsys.readouterr().out.split("\t")[1].split()) >= 3
