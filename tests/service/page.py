"""What the tests of the page do in the browser."""

from __future__ import annotations

import base64

from chromium import Browser

LISTED = "!document.querySelector('#models').hidden"
CAPTIONED = "!document.querySelector('#caption').hidden"
REFUSED = "document.querySelector('#message:not(.waiting)')?.innerText"


def give(browser: Browser, event: str, files: list[bytes], name: str = "a") -> None:
    """Drop or paste files on the page."""
    script = """
        const [kind, contents, name] = arguments;
        const transfer = new DataTransfer();
        for (const content of contents) {
          transfer.items.add(new File([Uint8Array.from(atob(content), (byte) => byte.charCodeAt())], name));
        }
        const given = {dataTransfer: transfer, clipboardData: transfer, bubbles: true, cancelable: true};
        document.body.dispatchEvent(kind === "drop" ? new DragEvent(kind, given) : new ClipboardEvent(kind, given));
    """
    browser.run(script, event, [base64.b64encode(content).decode() for content in files], name)


def record(browser: Browser) -> None:
    """Keep the body of the latest request in ``window.sent``."""
    browser.run(
        "const ask = fetch; fetch = (path, options) => { window.sent = options.body; return ask(path, options); }"
    )


def copied(browser: Browser, button: str) -> str:
    """What a button puts into the clipboard."""
    browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.click(button)
    browser.wait("document.querySelector('#note').innerText.startsWith('Copied')")
    return browser.run("return window.copied")
