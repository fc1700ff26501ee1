"""The gallery in a real browser, opened from the disk as its readers open it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import running
from chromium import RIGHT, TAB, Browser
from PIL import Image

from captioner.batch.outputs.gallery.table import GalleryTable
from captioner.batch.rows import to_line

Show = Callable[..., Browser]

CARDS = "return [...document.querySelectorAll('article')].map((card) => card.querySelector('.name').textContent)"
LOADED = "[...document.querySelectorAll('article img')].every((image) => image.naturalWidth > 0)"
CAPTION = "article .caption"


@pytest.fixture
def show(chromium: Browser, tmp_path: Path) -> Iterator[Show]:
    """Writes rows into a gallery and opens it; what it leaves in the console fails the test."""
    chromium.complaints()

    def write(*rows: dict[str, Any]) -> Browser:
        table = GalleryTable(tmp_path / "out.html")
        table.write(map(to_line, rows))
        chromium.ask("/url", {"url": table.path.as_uri()})
        return chromium

    yield write
    complaints = chromium.complaints()
    chromium.run("localStorage.clear()")
    chromium.ask("/url", {"url": "about:blank"})
    assert complaints == []


def row(number: int, **more: Any) -> dict[str, Any]:
    caption = {"text": f"a dog number {number}", "tokens": ["a", "dog", "number", str(number)], "score": -number / 100}
    return {"image": f"{number:03}.jpg", "model": "tiny", "source": f"{number:03}.jpg", "captions": [caption | more]}


def looking(*cells: int, cropped: bool = False) -> dict[str, Any]:
    """An attention that looks with each token at one cell of 2 x 2."""
    import base64

    weights = np.zeros((len(cells), 4), np.uint8)
    weights[np.arange(len(cells)), cells] = 255
    data = base64.b64encode(weights.tobytes()).decode()
    return {"shape": [len(cells), 2, 2], "weights": data} | ({"cropped": True} if cropped else {})


def white(path: Path, size: tuple[int, int] = (200, 100)) -> None:
    Image.new("RGB", size, "white").save(path)


def brightness(picture: Image.Image) -> list[bool]:
    """Whether each quarter of a picture is bright in its outer corner."""
    across, down = picture.width - 1, picture.height - 1
    grey = picture.convert("L")
    points = [(x, y) for y in (down // 8, down - down // 8) for x in (across // 8, across - across // 8)]
    return [grey.getpixel(point) > 200 for point in points]  # type: ignore[operator]


def test_pictures_are_there_with_what_the_model_says(show: Show, tmp_path: Path) -> None:
    running.write_pictures(tmp_path, 3)
    browser = show(*map(row, range(3)))
    browser.wait(LOADED)
    assert browser.run(CARDS) == ["000.jpg", "001.jpg", "002.jpg"]
    assert browser.text(CAPTION) == "a dog number 0"
    assert browser.text("#count") == "3 pictures"
    assert browser.run("return document.querySelector('article img').alt") == "a dog number 0"


def test_what_the_command_writes_can_be_shown(
    show: Show, batch: Callable[..., int], chromium: Browser, other: Path
) -> None:
    running.write_pictures(Path("my photos"), 2)
    Path("my photos/bad.jpg").write_bytes(b"bad")
    arguments = ["--model", other, "--n-best", 3, "--beam-size", 3, "--prefix", "Image: ", "--output", "out.html"]
    assert batch("my photos", *arguments) == 1
    chromium.ask("/url", {"url": Path("out.html").absolute().as_uri()})
    chromium.wait("[...document.querySelectorAll('article img[src]')].every((image) => image.naturalWidth > 0)")
    assert chromium.run(CARDS) == ["my photos/000.jpg", "my photos/001.jpg", "my photos/bad.jpg"]
    assert chromium.run("return document.querySelectorAll('article')[0].querySelectorAll('.caption').length") == 6
    assert chromium.text("article:nth-of-type(3) .said .wrong").endswith("use JPEG, PNG, WebP or another common one")


def test_pointing_at_a_word_shows_where_the_model_looked(show: Show, tmp_path: Path) -> None:
    white(tmp_path / "000.jpg")
    browser = show(row(0, attention=looking(0, 1, 2, 3)))
    browser.wait(LOADED)
    assert brightness(browser.screenshot("article figure")) == [True] * 4
    browser.point(f"{CAPTION} span:nth-of-type(2)")
    assert browser.text(".looked") == "dog"
    assert brightness(browser.screenshot("article figure")) == [False, True, False, False]
    browser.point("h1")
    assert brightness(browser.screenshot("article figure")) == [True] * 4


def test_the_keyboard_steps_through_a_caption(show: Show, tmp_path: Path) -> None:
    white(tmp_path / "000.jpg")
    browser = show(row(0, attention=looking(0, 1, 2, 3)))
    browser.run(f"document.querySelector('{CAPTION}').focus()")
    for word in ("a", "dog", "number", "0", "0"):
        browser.press(RIGHT)
        assert browser.text(".looked") == word
    browser.press(TAB)
    assert browser.run("return document.querySelector('.looked')") is None


def test_what_a_model_did_not_see_is_not_darkened(show: Show, tmp_path: Path) -> None:
    white(tmp_path / "000.jpg", (240, 60))
    browser = show(row(0, attention=looking(0, 1, 2, 3, cropped=True)))
    browser.wait(LOADED)
    browser.point(f"{CAPTION} span:nth-of-type(1)")
    picture = browser.screenshot("article figure").convert("L")
    middle, down = picture.width // 2, picture.height // 4
    assert brightness(picture) == [True] * 4  # left and right of the square in the middle
    assert picture.getpixel((middle - down, down)) > 200  # type: ignore[operator]
    assert picture.getpixel((middle + down, down)) < 100  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "tokens", "spans"),
    [
        ("A photo of a dog.", ["a", "dog"], ["a", "dog"]),
        ("a dog's (big) bone", ["a", "dog's", "(", "big", ")", "bone"], ["a", "dog's", "(", "big", ")", "bone"]),
        ("a dog", ["a", "dog", "runs"], ["a", "dog", "runs"]),
        ("A dog runs.", ["D", "AO", "G"], ["D", "AO", "G"]),
        ("ein Hund | läuft – 50% \\ [x]", ["läuft", "–", "50%", "\\", "[x]"], ["läuft", "–", "50%", "\\", "[x]"]),
    ],
)
def test_each_token_can_be_pointed_at(
    show: Show, tmp_path: Path, text: str, tokens: list[str], spans: list[str]
) -> None:
    white(tmp_path / "000.jpg")
    caption = {"text": text, "tokens": tokens, "attention": looking(*[0] * len(tokens))}
    browser = show(row(0, **caption))
    assert browser.text(CAPTION) == text
    found = browser.run("return [...document.querySelectorAll('[tabindex] span')].map((span) => span.textContent)")
    assert found == spans
    whole = "".join(
        browser.run(f"return [...document.querySelector('{CAPTION}').childNodes].map((n) => n.textContent)")
    )
    assert whole == text


def test_names_and_captions_are_text(show: Show) -> None:
    evil = '</script><img src=x onerror="document.title=1"><!--'
    browser = show(
        {"image": evil, "model": "tiny", "captions": [{"text": evil, "tokens": [evil], "score": -1}]},
        {"image": "bad", "error": evil, "code": "image_broken"},
    )
    assert browser.run(CARDS) == [evil, "bad"]
    assert browser.text(CAPTION) == evil
    assert browser.text(".wrong") == ""  # that of pictures that are gone
    assert browser.text("article:nth-of-type(2) .said .wrong") == evil
    assert browser.run("return document.title") == "Captions to review"


def test_a_picture_that_is_gone_is_told(chromium: Browser, show: Show) -> None:
    browser = show(row(0))
    browser.wait("!document.querySelector('.gone').hidden")
    assert browser.text(".gone").startswith("The picture cannot be shown")
    assert "ERR_FILE_NOT_FOUND" in "".join(chromium.complaints())


def test_pages_of_many(show: Show) -> None:
    copy = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw=="
    browser = show(*({**row(number), "source": copy} for number in range(130)))
    assert len(browser.run(CARDS)) == 60
    assert browser.text("#page") == "Page 1 of 3"
    browser.click("#on")
    browser.click("#on")
    assert browser.run(CARDS) == [f"{number:03}.jpg" for number in range(120, 130)]
    assert browser.run("return document.querySelector('#on').disabled")
    browser.click("#back")
    assert browser.run(CARDS)[0] == "060.jpg"


def test_what_is_wanted_is_found(show: Show, tmp_path: Path) -> None:
    running.write_pictures(tmp_path, 3)
    browser = show(*map(row, range(3)), {"image": "bad.jpg", "error": "bad.jpg is damaged", "code": "image_broken"})
    browser.wait(LOADED.replace("img", "img[src]"))
    browser.type("#wanted", "Number 2")
    assert browser.run(CARDS) == ["002.jpg"]
    assert browser.text("#count") == "1 of 4 pictures"
    browser.run("const wanted = document.querySelector('#wanted'); wanted.value = ''; wanted.oninput()")
    choose(browser, "#order", "doubtful")
    assert browser.run(CARDS) == ["002.jpg", "001.jpg", "000.jpg", "bad.jpg"]
    choose(browser, "#kind", "failed")
    assert browser.run(CARDS) == ["bad.jpg"]
    browser.wait(LOADED.replace("img", "img[src]"))


def choose(browser: Browser, select: str, value: str) -> None:
    script = "const one = document.querySelector(arguments[0]); one.value = arguments[1]; one.onchange()"
    browser.run(script, select, value)


def test_marks_stay_and_are_saved_as_a_list(show: Show, tmp_path: Path) -> None:
    running.write_pictures(tmp_path, 3)
    browser = show(*map(row, range(3)))
    assert browser.run("return document.querySelector('#download').disabled")
    browser.click("article:nth-of-type(2) input")
    browser = show(*map(row, range(3)))
    browser.wait(LOADED)
    choose(browser, "#kind", "marked")
    assert browser.run(CARDS) == ["001.jpg"]
    keep = "URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; }); return '#'; }"
    browser.run(keep)
    browser.click("#download")
    assert browser.wait("window.saved") == "001.jpg\n"
    assert json.loads(browser.run("return Object.values(localStorage)[0]")) == ["001.jpg"]


def test_models_stand_together(show: Show, tmp_path: Path) -> None:
    running.write_pictures(tmp_path, 1)
    second = {"image": "000.jpg", "model": "other", "captions": row(5)["captions"]}
    browser = show(row(0), second)
    browser.wait(LOADED)
    assert browser.run(CARDS) == ["000.jpg"]
    texts = browser.run("return [...document.querySelectorAll('.said p')].map((p) => p.textContent)")
    assert texts == ["tiny", "a dog number 0", "other", "a dog number 5"]
