"""The page in a real browser, if there is one: Chromium and its driver, ``apt-get install chromium-driver``."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from chromium import CHROMIUM, DRIVER, ENTER, RIGHT, TAB, Browser
from flask import Flask

from captioner import Captioner
from captioner.checkpoint import ModelInfo
from captioner.tokens import Vocabulary
from service.app import create_app
from service.config import ServiceConfig

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no Chromium with its driver here")


class Reader:
    """Reads phones one by one."""

    def read(self, tokens: Sequence[str]) -> list[str]:
        return [f"<{token}>" for token in tokens]


@pytest.fixture
def phones(tiny_info: ModelInfo, loaded: Captioner) -> Captioner:
    """The tiny model as one of phones, which are read as words too."""
    symbols = ["DH", "AH", "D", "AO", "G", "|", "R", "UH", "N", "Z"]
    info = dataclasses.replace(tiny_info, name="phones", tokenizer="symbols", vocabulary=Vocabulary.build([symbols]))
    return Captioner(loaded.engine, info, Reader())


@pytest.fixture
def app(loaded: Captioner, phones: Captioner) -> Flask:
    return create_app(ServiceConfig(), [loaded, phones])


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert DRIVER
    with subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        try:
            port = next(
                int(found[1])
                for line in driver.stdout
                if (found := re.search(r"started successfully on port (\d+)", line))
            )
            browser = Browser(port, tmp_path_factory.mktemp("profile"))
            yield browser
            browser.end()
        finally:
            driver.terminate()


@pytest.fixture
def browser(started: Browser, address: str) -> Iterator[Browser]:
    started.command("Emulation.clearDeviceMetricsOverride", {})
    started.ask("/url", {"url": address})
    started.wait("!document.querySelector('#models').hidden")
    started.run(WATCH)
    yield started
    assert started.complaints() == []


@pytest.fixture
def photo_path(jpeg: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg)
    return path


def give(browser: Browser, event: str, files: list[bytes]) -> None:
    """Drop or paste files on the page."""
    script = """
        const [kind, contents] = arguments;
        const transfer = new DataTransfer();
        for (const content of contents) {
          transfer.items.add(new File([Uint8Array.from(atob(content), (byte) => byte.charCodeAt())], "a"));
        }
        const given = {dataTransfer: transfer, clipboardData: transfer, bubbles: true, cancelable: true};
        document.body.dispatchEvent(kind === "drop" ? new DragEvent(kind, given) : new ClipboardEvent(kind, given));
    """
    browser.run(script, event, [base64.b64encode(content).decode() for content in files])


CONTRAST = """
    const luminance = (colour) => {
      const linear = (part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4;
      const [red, green, blue] = colour.match(/[\\d.]+/g).map((part) => linear(part / 255));
      return .2126 * red + .7152 * green + .0722 * blue;
    };
    let ground = document.querySelector(arguments[0]);
    const ink = luminance(getComputedStyle(ground).color);
    while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    const [dark, light] = [ink, luminance(getComputedStyle(ground).backgroundColor)].sort((a, b) => a - b);
    return (light + .05) / (dark + .05);
"""
CAPTIONED = "!document.querySelector('#caption').hidden"
REFUSED = "document.querySelector('#message:not(.waiting)')?.innerText"
# The sounds here are so short that one may begin and end between two looks at the button.
WATCH = """
    const play = document.querySelector("#play");
    window.seen = [];
    new MutationObserver(() => window.seen.push(play.innerText)).observe(play, {childList: true});
"""
PLAYING = "window.seen.includes('Stop')"
PLAYED = "window.seen.lastIndexOf('Play') > window.seen.lastIndexOf('Stop')"


def test_a_chosen_picture_is_captioned_and_spoken(browser: Browser, loaded: Captioner, photo_path: Path) -> None:
    assert browser.text("#models label").split("\n") == [loaded.name, loaded.info.description]
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    assert browser.text("#caption") == loaded(photo_path).sentence
    assert browser.run("return document.querySelector('#picture').naturalWidth") == 60
    assert browser.text("#message") == ""

    browser.click("#play")
    browser.wait(PLAYING)
    browser.wait(PLAYED)
    assert browser.text("#spoken") == ""


def test_the_caption_can_be_copied(browser: Browser, photo_path: Path) -> None:
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.click("#copy")
    browser.wait("document.querySelector('#copy').innerText === 'Copied'")
    assert browser.run("return window.copied") == browser.text("#caption")


def test_another_picture_ends_the_sound(browser: Browser, loaded: Captioner, png: bytes, photo_path: Path) -> None:
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    browser.click("#play")
    browser.wait(PLAYING)
    give(browser, "drop", [png])
    browser.wait("document.querySelector('#caption').innerText === arguments[0]", loaded(png).sentence)
    assert browser.text("#play") == "Play"


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(
    browser: Browser, loaded: Captioner, jpeg: bytes, png: bytes, event: str
) -> None:
    for image in (jpeg, png):
        give(browser, event, [image])
        browser.wait("document.querySelector('#caption').innerText === arguments[0]", loaded(image).sentence)
    give(browser, event, [])
    assert browser.text("#message") == "That is no picture file; links are not followed."


def test_the_keyboard_alone_does_it_all(browser: Browser, loaded: Captioner, jpeg: bytes, photo_path: Path) -> None:
    def focused() -> str:
        return browser.run("return document.activeElement.id || document.activeElement.value")

    browser.press(TAB)
    assert focused() == "choose"
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    browser.press(TAB)
    assert focused() == "caption"
    browser.press(RIGHT)
    browser.press(RIGHT)
    caption = loaded(jpeg)
    assert browser.text("#caption .looked").lower() == caption.tokens[1]
    shade = browser.run(
        "return [...document.querySelector('#gaze').getContext('2d').getImageData(0, 0, 4, 2).data]"
        ".filter((_, index) => index % 4 === 3)"
    )
    darkest = caption.attention[1].flatten().argmin()
    assert len(shade) == caption.attention[1].size
    assert (min(shade), max(shade)) == (0, shade[darkest])
    assert shade[caption.attention[1].flatten().argmax()] == 0
    browser.press(TAB)
    assert browser.run("return document.querySelector('#gaze').hidden")
    assert focused() == "play"
    browser.press(ENTER)
    browser.wait(PLAYING)
    browser.press(TAB)
    assert focused() == "copy"
    browser.press(TAB)
    assert focused() == loaded.name


def test_what_the_service_refuses_is_told_in_its_sentence(browser: Browser) -> None:
    give(browser, "drop", [b"hello"])
    assert "no known image format" in browser.wait(REFUSED).lower()
    assert browser.run("return document.querySelector('#frame').hidden")
    assert browser.text("#caption") == ""
    assert "415" in browser.complaints()[0]


def test_without_a_synthesiser_the_sentence_says_so_and_the_button_rests(
    browser: Browser, photo_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    browser.click("#play")
    browser.wait("document.querySelector('#play').disabled")
    assert "captioner[speech]" in browser.text("#spoken")
    assert "501" in browser.complaints()[0]


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser: Browser, photo_path: Path, width: int, scheme: str) -> None:
    screen = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.command("Emulation.setDeviceMetricsOverride", screen)
    browser.command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    for selector in ("#caption", "#hint", ".primary", "#copy", "small"):
        assert browser.run(CONTRAST, selector) >= 4.5, selector  # WCAG 2.2, 1.4.3


def test_phones_are_shown_read_and_spoken_as_phones(
    browser: Browser, phones: Captioner, jpeg: bytes, photo_path: Path
) -> None:
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    assert browser.text("#words") == ""
    browser.click(f"[value={phones.name}]")
    caption = phones(jpeg)
    browser.wait("document.querySelector('#caption.symbols')?.innerText === arguments[0]", caption.text)
    assert browser.text("#words") == caption.words
    browser.run(
        "const ask = fetch; fetch = (path, options) => { window.sent = options.body; return ask(path, options); }"
    )
    browser.click("#play")
    browser.wait(PLAYING)
    assert json.loads(browser.run("return window.sent")) == {"phones": list(caption.tokens)}
