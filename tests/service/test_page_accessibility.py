"""The pages for everybody: by axe-core's rules, by keyboard, on small screens, in the colours that people choose."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from chromium import RIGHT, TAB, Browser
from page import CAPTIONED, LISTED
from PIL import ImageChops


@pytest.fixture(scope="session")
def axe() -> str:
    """The rules as a script."""
    package = importlib.util.find_spec("axe_core_python")
    if package is None or package.origin is None:
        pytest.skip("axe-core-python is not here")
    return Path(package.origin).with_name("axe.min.js").read_text(encoding="utf-8")


def prefer(browser: Browser, **features: str) -> None:
    named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    browser.command("Emulation.setEmulatedMedia", {"features": named})


def violations(browser: Browser, axe: str) -> list[str]:
    """Each rule that is broken seriously, and by what."""
    browser.run(axe)
    return [
        f"{found['id']}: {node['html']}: {node['failureSummary']}"
        for found in browser.run("return axe.run({resultTypes: ['violations']})")["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_keeps_the_rules(browser: Browser, axe: str, photo_path: Path, scheme: str) -> None:
    prefer(browser, prefers_color_scheme=scheme)
    browser.wait(LISTED)
    assert violations(browser, axe) == []
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    browser.run("document.querySelector('#caption').focus()")
    browser.press(RIGHT)
    assert browser.text("#caption .looked")
    assert violations(browser, axe) == []
    browser.run("document.querySelector('#unlock').hidden = false")
    assert violations(browser, axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_reference_keeps_the_rules(browser: Browser, axe: str, address: str, scheme: str) -> None:
    prefer(browser, prefers_color_scheme=scheme)
    browser.ask("/url", {"url": f"{address}/docs"})
    assert violations(browser, axe) == []


def test_the_rules_are_applied(browser: Browser, axe: str) -> None:
    browser.wait(LISTED)
    browser.run("document.querySelector('#choose').parentElement.replaceWith(document.querySelector('#choose'))")
    assert [found.split(":")[0] for found in violations(browser, axe)] == ["label"]


def test_a_caption_is_told_once_and_whole(browser: Browser, photo_path: Path) -> None:
    browser.wait(LISTED)
    browser.run(
        """
        window.told = [];
        const tell = (changes) => changes.forEach(({target}) => window.told.push(target.textContent));
        const live = document.querySelectorAll("[role=status], [role=alert], [aria-live]");
        for (const region of live) new MutationObserver(tell).observe(region, {childList: true, subtree: true});
        """
    )
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    browser.run("document.querySelector('#caption').focus()")
    browser.press(RIGHT)
    assert browser.text("#caption .looked")
    assert [text for text in browser.run("return window.told") if text] == ["Looking …", browser.text("#caption")]


def test_the_focus_is_always_seen(browser: Browser, photo_path: Path) -> None:
    browser.wait(LISTED)
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    browser.run("document.activeElement.blur()")
    for _ in range(6):
        browser.press(TAB)
        seen = (
            "return getComputedStyle(document.activeElement.closest('.button') ?? document.activeElement).outlineStyle"
        )
        assert browser.run(seen) == "solid"


def test_whatever_is_pressed_is_large_enough(browser: Browser, photo_path: Path) -> None:
    browser.wait(LISTED)
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    browser.run("document.querySelector('#unlock').hidden = false")
    sizes = browser.run(
        """
        return [...document.querySelectorAll("button, label:has(input), input:not(label input)")]
          .map((target) => target.getBoundingClientRect())
          .filter(({width}) => width)
          .map(({width, height}) => Math.min(width, height));
        """
    )
    assert len(sizes) >= 8
    assert min(sizes) >= 24  # WCAG 2.2, 2.5.8


@pytest.mark.parametrize("width", [320, 360, 1200])  # the first is 1280 at 400 %: WCAG 2.2, 1.4.10
def test_it_fits(browser: Browser, photo_path: Path, width: int) -> None:
    screen = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.command("Emulation.setDeviceMetricsOverride", screen)
    browser.wait(LISTED)
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.run("document.documentElement.style.fontSize = '200%'")  # WCAG 2.2, 1.4.4
    assert browser.run("return document.documentElement.scrollWidth") <= width


def test_a_word_is_marked_in_forced_colours(browser: Browser, photo_path: Path) -> None:
    prefer(browser, forced_colors="active")
    browser.type("#choose", str(photo_path))
    browser.wait(CAPTIONED)
    browser.point("h1")
    bare = browser.screenshot("#caption")
    browser.point("#caption [data-index='1']")
    assert ImageChops.difference(bare, browser.screenshot("#caption")).getbbox()


@pytest.mark.parametrize(("motion", "moving"), [("no-preference", 1), ("reduce", 0)])
def test_nothing_moves_for_who_wants_that(browser: Browser, photo_path: Path, motion: str, moving: int) -> None:
    prefer(browser, prefers_reduced_motion=motion)
    browser.wait(LISTED)
    browser.run("fetch = () => new Promise(() => {})")  # a service that takes its time
    browser.type("#choose", str(photo_path))
    assert browser.text("#message") == "Looking …"
    assert browser.run("return document.getAnimations().length") == moving
