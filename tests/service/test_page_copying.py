"""What leaves the page: alternative text, plain and in HTML."""

from __future__ import annotations

import pytest
from chromium import Browser
from page import CAPTIONED, LISTED, copied, give

from captioner import Captioner


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("photo.jpg", "photo.jpg"),
        ("Tom & Jerry.jpg", "Tom%20&amp;%20Jerry.jpg"),
        ('a"><script>.jpg', "a&quot;&gt;&lt;script&gt;.jpg"),
        ("50% of #1?.jpg", "50%25%20of%20%231%3F.jpg"),
        ("Hündchen.jpg", "Hündchen.jpg"),
    ],
)
def test_the_caption_is_copied_as_html(
    browser: Browser, loaded: Captioner, jpeg: bytes, name: str, source: str
) -> None:
    give(browser, "drop", [jpeg], name)
    browser.wait(CAPTIONED)
    element = copied(browser, "#copy-html")
    assert element == f'<img src="{source}" alt="{loaded(jpeg).sentence}">'
    parsed = browser.run(
        "const {body} = new DOMParser().parseFromString(arguments[0], 'text/html');"
        "const image = body.firstChild;"
        "return [body.childNodes.length, decodeURIComponent(image.getAttribute('src')), image.alt]",
        element,
    )
    assert parsed == [1, name, loaded(jpeg).sentence]


def test_long_alternative_text_is_called_so(browser: Browser, loaded: Captioner, jpeg: bytes) -> None:
    browser.wait(LISTED)
    give(browser, "drop", [jpeg])
    browser.wait(CAPTIONED)
    caption = loaded(jpeg).sentence
    assert browser.text("#length") == f"{len(caption)} characters"
    reply = "async () => new Response(JSON.stringify({model: 'tiny', results: [{captions: [{text: 'dog '.repeat(32), "
    browser.run(f"fetch = {reply}tokens: []}}], attention: {{weights: [], others: []}}}}]}}))")
    give(browser, "drop", [jpeg])
    browser.wait("document.querySelector('#length').innerText.startsWith('129 characters')")
    assert "within 125" in browser.text("#length")
