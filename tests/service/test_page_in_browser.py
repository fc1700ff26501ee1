"""The page in a real browser, as its visitors use it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chromium import DOWN, ENTER, RIGHT, TAB, Browser
from flask import Flask
from page import CAPTIONED, LISTED, REFUSED, copied, give, record
from PIL import ImageChops

from captioner import Captioner
from captioner.checkpoint import ModelInfo
from captioner.tokens import Vocabulary
from service.app import create_app
from service.config import ServiceConfig

PHONES = "DH AH D AO G | R UH N Z"
FOREIGN = "ð ə | d ɔ ɡ ɹ ʌ n z"


class Reader:
    """Reads phones one by one."""

    def read(self, tokens: Sequence[str]) -> list[str]:
        return [f"<{token}>" for token in tokens]


def of_symbols(loaded: Captioner, info: ModelInfo, name: str, symbols: str) -> Captioner:
    """The tiny model as one of symbols, which are read as words too."""
    vocabulary = Vocabulary.build([symbols.split()])
    return Captioner(
        loaded.engine, dataclasses.replace(info, name=name, tokenizer="symbols", vocabulary=vocabulary), Reader()
    )


@pytest.fixture
def phones(tiny_info: ModelInfo, loaded: Captioner) -> Captioner:
    return of_symbols(loaded, tiny_info, "phones", PHONES)


@pytest.fixture
def app(loaded: Captioner, tiny_info: ModelInfo, phones: Captioner) -> Flask:
    return create_app(ServiceConfig(), [loaded, phones, of_symbols(loaded, tiny_info, "foreign", FOREIGN)])


@pytest.fixture
def browser(browser: Browser) -> Browser:
    browser.wait(LISTED)
    browser.run(WATCH)
    return browser


@pytest.fixture
def captioned(browser: Browser, photo_path: Path) -> Browser:
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    return browser


# The sounds here are so short that one may begin and end between two looks at the button.
WATCH = """
    const play = document.querySelector("#play");
    window.seen = [];
    new MutationObserver(() => window.seen.push(play.innerText)).observe(play, {childList: true});
"""
PLAYING = "window.seen.includes('Stop')"
PLAYED = "window.seen.lastIndexOf('Play') > window.seen.lastIndexOf('Stop')"


def spoken(browser: Browser) -> Any:
    """What is asked of ``/v1/speech`` when Play is pressed."""
    record(browser)
    browser.click("#play")
    browser.wait(PLAYING)
    return json.loads(browser.run("return window.sent"))


def test_a_chosen_picture_is_captioned_and_spoken(captioned: Browser, loaded: Captioner, photo_path: Path) -> None:
    names = captioned.run("return [...document.querySelectorAll('#models input')].map((input) => input.value)")
    assert names == [loaded.name, "phones", "foreign"]
    assert loaded.info.description in captioned.text("#models label")
    assert captioned.text("#caption") == loaded(photo_path).sentence
    assert captioned.run("return document.querySelector('#picture').naturalWidth") == 60
    assert captioned.text("#message") == ""
    captioned.click("#play")
    captioned.wait(PLAYING)
    captioned.wait(PLAYED)
    assert captioned.text("#note") == ""


def test_another_picture_ends_the_sound(captioned: Browser, loaded: Captioner, png: bytes) -> None:
    captioned.click("#play")
    captioned.wait(PLAYING)
    give(captioned, "drop", [png])
    captioned.wait("document.querySelector('#caption').innerText === arguments[0]", loaded(png).sentence)
    assert captioned.text("#play") == "Play"


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(
    browser: Browser, loaded: Captioner, jpeg: bytes, png: bytes, event: str
) -> None:
    for image in (jpeg, png):
        give(browser, event, [image])
        browser.wait("document.querySelector('#caption').innerText === arguments[0]", loaded(image).sentence)
    give(browser, event, [])
    assert browser.text("#message") == "That is no picture file; links are not followed."


def test_a_pointer_over_a_word_shows_where_the_model_looked(captioned: Browser) -> None:
    bare = captioned.screenshot("#frame")
    captioned.point("#caption [data-index='1']")
    looked = captioned.screenshot("#frame")
    assert ImageChops.difference(bare, looked).getbbox()
    captioned.point("#caption [data-index='2']")
    assert ImageChops.difference(looked, captioned.screenshot("#frame")).getbbox()
    captioned.point("h1")
    assert not ImageChops.difference(bare, captioned.screenshot("#frame")).getbbox()


def test_touch_stays_until_another(captioned: Browser) -> None:
    leave = "document.querySelector('#caption').dispatchEvent(new PointerEvent('pointerleave', {pointerType: %r}))"
    captioned.point("#caption [data-index='1']")
    captioned.run(leave % "touch")
    assert captioned.text("#caption .looked")
    captioned.run(leave % "mouse")
    assert captioned.run("return document.querySelector('#gaze').hidden")


def test_another_of_the_best_captions_is_read_heard_and_copied(
    captioned: Browser, loaded: Captioner, photo_path: Path
) -> None:
    candidates = loaded.candidates(photo_path, n_best=loaded.info.decoding.beam_size)
    assert captioned.text("#captions label").split("\n") == [candidates[0].sentence]
    listed = captioned.run("return [...document.querySelectorAll('#captions input')].map((input) => input.value)")
    assert listed == [caption.sentence for caption in candidates]

    second = candidates[1]
    captioned.click("#captions label:nth-of-type(2)")
    assert captioned.text("#caption") == second.sentence
    assert captioned.run("return document.querySelector('#picture').alt") == second.sentence
    assert spoken(captioned) == {"text": second.sentence}
    assert copied(captioned, "#copy") == second.sentence
    last = len(second.tokens) - 1
    captioned.point(f"#caption [data-index='{last}']")
    weights = second.attention[last].flatten()
    expected = 200 * (1 - weights / weights.max())
    assert shade(captioned) == pytest.approx(expected.tolist(), abs=1)


def shade(browser: Browser) -> list[int]:
    """How dark each cell of the grid is, row by row."""
    return browser.run(
        "return [...document.querySelector('#gaze').getContext('2d').getImageData(0, 0, 4, 2).data]"
        ".filter((_, index) => index % 4 === 3)"
    )


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
    weights = caption.attention[1].flatten()
    shades = shade(browser)
    assert len(shades) == weights.size
    assert (min(shades), max(shades)) == (shades[weights.argmax()], shades[weights.argmin()])
    assert min(shades) == 0
    browser.press(TAB)
    assert browser.run("return document.querySelector('#gaze').hidden")
    assert focused() == "play"
    browser.press(ENTER)
    browser.wait(PLAYING)
    browser.press(TAB)
    assert focused() == "copy"
    browser.press(TAB)
    assert focused() == "copy-html"
    browser.press(TAB)
    assert focused() == caption.sentence
    browser.press(DOWN)
    assert browser.text("#caption") == focused() != caption.sentence
    browser.press(TAB)
    assert focused() == loaded.name


def test_what_the_service_refuses_is_told_in_its_sentence(browser: Browser) -> None:
    give(browser, "drop", [b"hello"])
    assert "none of the image formats" in browser.wait(REFUSED).lower()
    assert browser.run("return document.querySelector('#frame').hidden")
    assert browser.text("#caption") == ""
    assert "415" in browser.complaints()[0]


def test_without_a_synthesiser_the_sentence_says_so_and_the_button_rests(
    captioned: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    captioned.click("#play")
    captioned.wait("document.querySelector('#play').disabled")
    assert "captioner[speech]" in captioned.text("#note")
    assert "501" in captioned.complaints()[0]
    captioned.click("#captions label:nth-of-type(2)")
    assert captioned.run("return document.querySelector('#play').disabled")


def test_phones_are_shown_read_spoken_and_copied(captioned: Browser, phones: Captioner, jpeg: bytes) -> None:
    assert captioned.text("#words") == captioned.text("#copy-symbols") == ""
    captioned.click("[value=phones]")
    caption = phones(jpeg)
    captioned.wait("document.querySelector('#caption.symbols')?.innerText === arguments[0]", caption.text)
    assert captioned.text("#words") == caption.sentence
    assert spoken(captioned) == {"phones": list(caption.tokens)}
    assert copied(captioned, "#copy") == caption.sentence
    assert copied(captioned, "#copy-symbols") == caption.text


def test_play_is_not_offered_for_symbols_that_cannot_be_spoken(captioned: Browser) -> None:
    assert captioned.text("#play") == "Play"
    captioned.click("[value=foreign]")
    captioned.wait("document.querySelector('#caption.symbols')?.innerText")
    assert captioned.text("#copy") == "Copy"
    assert captioned.text("#play") == ""
