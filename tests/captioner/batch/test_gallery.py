"""The gallery's file: where its pictures are, what it says of attention, and that it comes back as it was written."""

from __future__ import annotations

import base64
import json
import os
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import running
from PIL import Image

from captioner import Captioner
from captioner.batch.outputs.gallery.details import SIDE, GalleryDetails
from captioner.batch.outputs.gallery.table import CLOSING, OPENING
from captioner.batch.pictures import Picture, file_picture

Command = Callable[..., int]


def rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text("utf-8").splitlines()
    return [json.loads(line.removeprefix(OPENING).removesuffix(CLOSING)) for line in lines if line.startswith(OPENING)]


def without_details(row: dict[str, Any]) -> dict[str, Any]:
    captions = [{name: caption[name] for name in ("text", "tokens", "score")} for caption in row["captions"]]
    return {"image": row["image"], "model": row["model"], "captions": captions}


def encoded(format_: str) -> bytes:
    file = BytesIO()
    running.picture(1).save(file, format_)
    return file.getvalue()


def embedded(source: str) -> Image.Image:
    kind, _, data = source.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(BytesIO(base64.b64decode(data)))


def test_it_says_what_json_lines_say(batch: Command) -> None:
    running.write_pictures(Path("photos"), 6)
    assert batch("photos", "--output", "out.html", "--n-best", 2) == 0
    assert batch("photos", "--output", "out.jsonl", "--n-best", 2) == 0
    expected = [json.loads(line) for line in Path("out.jsonl").read_text("utf-8").splitlines()]
    assert [without_details(row) for row in rows(Path("out.html"))] == expected


def test_attention_is_the_model_s_to_a_byte(batch: Command, tiny_captioner: Captioner) -> None:
    (path,) = running.write_pictures(Path("photos"), 1)
    assert batch("photos", "--output", "out.html") == 0
    (row,) = rows(Path("out.html"))
    attention = row["captions"][0]["attention"]
    expected = tiny_captioner(path).attention
    assert attention["shape"] == [*expected.shape]
    found = np.frombuffer(base64.b64decode(attention["weights"]), np.uint8).reshape(expected.shape)
    largest = expected.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found / 255, expected / largest, atol=0.5 / 255 + 1e-5)
    assert "cropped" not in attention


def test_pictures_are_named_from_where_the_gallery_lies(batch: Command) -> None:
    Path("reviews").mkdir()
    running.write_pictures(Path("my photos"), 1, ending=".png")
    odd = Path("my photos/50%#1?.jpg")
    running.picture(7).save(odd)
    assert batch("my photos", odd.absolute(), "--output", "reviews/out.html") == 0
    sources = [row["source"] for row in rows(Path("reviews/out.html"))]
    name = "../my%20photos/50%25%231%3F.jpg"
    assert sources == ["../my%20photos/000.png", name, name]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_text_has_an_address(tmp_path: Path) -> None:
    picture = file_picture(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/caf\xe9.jpg"))
    assert GalleryDetails(tmp_path).of_picture(picture, encoded("PNG")) == {"source": "photos/caf%E9.jpg"}


@pytest.mark.parametrize("name", ["big.tif", "big.jpg"])
def test_what_browsers_may_not_open_is_shown_by_a_copy(batch: Command, name: str) -> None:
    running.picture(1).resize((3 * SIDE, SIDE)).save(name, "TIFF")
    assert batch(name, "--output", "out.html") == 0
    copy = embedded(rows(Path("out.html"))[0]["source"])
    assert copy.size == (SIDE, round(SIDE / 3))
    expected = np.asarray(running.picture(1).resize(copy.size), float)
    assert np.abs(np.asarray(copy) - expected).mean() < 8


def test_a_copy_is_upright(batch: Command) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    running.picture(1).save("turned.tif", exif=exif)
    assert batch("turned.tif", "--output", "out.html") == 0
    assert embedded(rows(Path("out.html"))[0]["source"]).size == (72, 96)


def test_members_of_archives_are_shown_by_copies(batch: Command) -> None:
    (path,) = running.write_pictures(Path("photos"), 1)
    with tarfile.open("shard.tar", "w") as archive:
        archive.add(path, "000.jpg")
    assert batch("shard.tar", "--output", "out.html") == 0
    assert embedded(rows(Path("out.html"))[0]["source"]).size == (96, 72)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.org/a.jpg", True),
        ("http://example.org/picture?id=3", True),
        ("https://example.org/shard.tar/a.jpg", False),
        ("s3://bucket/a.jpg", False),
    ],
)
def test_pictures_on_the_web_are_shown_from_there(tmp_path: Path, url: str, shown: bool) -> None:
    data = encoded("PNG")
    source = GalleryDetails(tmp_path).of_picture(Picture(url, None, lambda: data), data)["source"]
    assert source == url if shown else embedded(source).size == (96, 72)


def test_a_picture_s_address_is_told_once_whatever_the_number_of_models(batch: Command, other: Path) -> None:
    running.write_pictures(Path("photos"), 1)
    assert batch("photos", "--model", other, "--output", "out.html") == 0
    assert [row.get("source") for row in rows(Path("out.html"))] == ["photos/000.jpg", None]


def test_a_second_run_adds_what_is_new(batch: Command) -> None:
    running.write_pictures(Path("photos"), 4)
    assert batch("photos", "--output", "once.html") == 0
    Path("photos/003.jpg").rename("003.jpg")
    assert batch("photos", "--output", "out.html") == 0
    Path("003.jpg").rename("photos/003.jpg")
    assert batch("photos", "--output", "out.html") == 0
    assert [row["image"] for row in rows(Path("out.html"))] == [row["image"] for row in rows(Path("once.html"))]


def test_failures_are_in_it_and_tried_again(batch: Command) -> None:
    running.write_pictures(Path("photos"), 1)
    Path("photos/bad.jpg").write_bytes(b"<script>alert(1)</script>")
    assert batch("photos", "--output", "out.html") == 1
    bad = rows(Path("out.html"))[1]
    assert bad["code"] == "not_an_image"
    assert "source" not in bad
    running.picture(9).save("photos/bad.jpg")
    assert batch("photos", "--output", "out.html", "--retry-failed") == 0
    assert [row["source"] for row in rows(Path("out.html"))] == ["photos/000.jpg", "photos/bad.jpg"]


def test_nothing_that_is_said_ends_an_element(batch: Command) -> None:
    running.write_pictures(Path("photos"), 1)
    assert batch("photos", "--output", "out.html", "--prefix", "</script><!--<script>") == 0
    text = Path("out.html").read_text("utf-8")
    assert text.count("</script>") == 2  # of the row and of the page's script
    assert "<!--" not in text
    assert rows(Path("out.html"))[0]["captions"][0]["text"].startswith("</script><!--<script>")


def test_a_page_by_somebody_else_is_left_alone(batch: Command, capsys: pytest.CaptureFixture[str]) -> None:
    running.write_pictures(Path("photos"), 1)
    page = "<!doctype html><title>mine</title>\n"
    Path("out.html").write_text(page)
    assert batch("photos", "--output", "out.html") == 1
    assert "is no gallery" in capsys.readouterr().err
    assert Path("out.html").read_text() == page
