"""Chromium by the WebDriver protocol (W3C), which is JSON over HTTP and needs no package.

Both come with ``apt-get install chromium-driver``.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of a reference to an element, by the standard
TAB, ENTER, RIGHT, DOWN = "\ue004", "\ue007", "\ue014", "\ue015"


@contextlib.contextmanager
def start(profile: Path) -> Iterator[Browser]:
    """A browser for the length of a block, with an empty folder to keep its files in."""
    assert DRIVER
    with subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        try:
            port = next(
                int(found[1])
                for line in driver.stdout
                if (found := re.search(r"started successfully on port (\d+)", line))
            )
            browser = Browser(port, profile)
            yield browser
            browser.end()
        finally:
            driver.terminate()


class Browser:
    """One window of a headless Chromium, through the driver that listens on a port."""

    def __init__(self, port: int, profile: Path) -> None:
        self._port = port
        self._session = ""
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        self._session = "/session/" + self.ask("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def ask(self, path: str, body: dict[str, Any], method: str = "POST") -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, self._session + path, json.dumps(body))
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        assert not isinstance(value, dict) or "error" not in value, value
        return value

    def end(self) -> None:
        self.ask("", {}, "DELETE")

    def run(self, script: str, *arguments: object) -> Any:
        return self.ask("/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector: str) -> str:
        return self.ask("/element", {"using": "css selector", "value": selector})[ELEMENT]

    def type(self, selector: str, text: str) -> None:
        self.ask(f"/element/{self.find(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        self.ask(f"/element/{self.find(selector)}/click", {})

    def point(self, selector: str) -> None:
        """Move the mouse to the middle of an element."""
        move = {"type": "pointerMove", "origin": {ELEMENT: self.find(selector)}, "x": 0, "y": 0}
        self.ask("/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})

    def press(self, key: str) -> None:
        """Press and release a key, wherever the focus is."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self.ask("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def text(self, selector: str) -> str:
        """The text as it is seen: empty where it is hidden."""
        return self.ask(f"/element/{self.find(selector)}/text", {}, "GET")

    def screenshot(self, selector: str) -> Image.Image:
        """An element as it is painted, and whatever lies over it."""
        png = self.ask(f"/element/{self.find(selector)}/screenshot", {}, "GET")
        return Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")

    def wait(self, condition: str, *arguments: object) -> Any:
        deadline = time.monotonic() + 20
        while not (value := self.run(f"return {condition}", *arguments)):
            assert time.monotonic() < deadline, f"{condition}: {self.text('body')}"
            time.sleep(0.02)
        return value

    def command(self, name: str, parameters: dict[str, Any]) -> None:
        """One of Chromium's own commands, beyond the standard."""
        self.ask("/goog/cdp/execute", {"cmd": name, "params": parameters})

    def complaints(self) -> list[str]:
        """What the console says since it was asked last: violations of the policy, errors."""
        return [entry["message"] for entry in self.ask("/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """The addresses that were asked for since this was asked last."""
        events = (json.loads(entry["message"])["message"] for entry in self.ask("/se/log", {"type": "performance"}))
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
