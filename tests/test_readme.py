"""The blocks of README and docs, executed: what they promise a newcomer is what happens."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
from direct import DIRECT
from installed import missing, spell
from PIL import Image

from captioner.phones import parse_phones

ROOT = Path(__file__).parent.parent
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in (ROOT / "README.md", ROOT / "training" / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
README = PAGES["README.md"]
ANYTHING = "…"


def environment() -> dict[str, str]:
    """What commands are run in: the virtual environment's own come first, as its activation does; no proxy between."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "no_proxy": "localhost"}


def blocks(language: str, *pages: str) -> list[str]:
    """The blocks of the README, or of ``pages``."""
    found = (re.findall(r"^```(\w+)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL) for page in pages or (README,))
    return [text for page in found for name, text in page if name == language]


def commands(start: str, *pages: str) -> list[str]:
    """The lines of shell blocks that begin so, each once; a backslash joins lines."""
    lines = (line for text in blocks("sh", *pages) for line in text.replace("\\\n", "").splitlines())
    return list(dict.fromkeys(line for line in lines if line.startswith(start)))


@pytest.fixture
def folder(tmp_path: Path, picture: Image.Image) -> Path:
    """Where the README's reader stands: two pictures, and nothing called missing.jpg."""
    picture.save(tmp_path / "photo.jpg")
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "other.png")
    return tmp_path


@pytest.fixture(scope="module")
def server(bundled: None) -> Iterator[str]:
    """What ``make serve`` runs, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["captioner", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
    address = f"localhost:{port}"
    try:
        _wait_until_ready(f"http://{address}/health/ready")
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def _wait_until_ready(url: str) -> None:
    for _ in range(300):
        try:
            with DIRECT.open(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    pytest.fail("the server did not become ready")


def test_every_block_has_a_language_that_is_tested() -> None:
    named = [len(blocks(language)) for language in ("sh", "json", "console", "python")]
    assert all(named)
    assert sum(named) == README.count("```") // 2 - 1, "one block, the tree of folders, names no language"


@pytest.mark.parametrize("command", commands("make", *PAGES.values()))
def test_make_targets_exist(command: str) -> None:
    planned = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize("block", blocks("console", *PAGES.values()))
def test_console_sessions(block: str, folder: Path, bundled: None) -> None:
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    assert parts
    for command, expected in zip(parts[::2], parts[1::2], strict=True):
        done = subprocess.run(
            shlex.split(command), cwd=folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        pattern = ".+".join(re.escape(piece) for piece in expected.split(ANYTHING))
        assert re.fullmatch(pattern, done.stdout), f"{command} printed\n{done.stdout}instead of\n{expected}"
    if "--attention" in block:
        with Image.open(folder / "looked.png") as sheet:
            assert sheet.width > 200
    for name in re.findall(r"--output (\w+\.wav)", block):
        assert_wav(folder / name)


def assert_wav(path: Path) -> None:
    with wave.open(str(path)) as file:
        assert file.getnframes() > 0.3 * file.getframerate()


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks(block: str, folder: Path, bundled: None) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"[a-z' ]+ -\d+\.\d+", lines[0])
    assert re.fullmatch(r"\(\d+, 7, 7\)", lines[1])
    assert "missing.jpg does not exist" in lines[3]
    assert len(lines) == 2 + 3 + 3


@pytest.mark.parametrize("command", commands("curl"))
def test_curl_commands(command: str, folder: Path, server: str) -> None:
    arguments = shlex.split(command.replace("localhost:8000", server))
    command = [*arguments, "-sS"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if "--output" in arguments:
        assert_wav(folder / arguments[-1])
        return
    reply = json.loads(done.stdout)
    assert "error" not in reply
    if "/v1/caption" in command:
        assert len(reply["results"]) == command.count("@")
        assert all(result["captions"][0]["text"] for result in reply["results"])


def test_the_reply_looks_as_shown(folder: Path, server: str) -> None:
    shown = json.loads(blocks("json")[0])
    request = urllib.request.Request(f"http://{server}/v1/caption", data=(folder / "photo.jpg").read_bytes())
    with DIRECT.open(request, timeout=30) as response:
        reply = json.load(response)
    assert reply["model"] == shown["model"]
    (result,), (expected,) = reply["results"], shown["results"]
    assert result.keys() == expected.keys()
    assert result["captions"][0].keys() == expected["captions"][0].keys()


@pytest.mark.parametrize("block", blocks("python", PAGES["docs/image2speech.md"]))
def test_python_blocks_of_the_docs(block: str, folder: Path, bundled: None) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    phones, words, seconds = done.stdout.splitlines()
    assert len(parse_phones(phones)) > 10
    assert re.fullmatch(r"[a-z' ]+", words)
    assert 0.5 < float(seconds) < 10


@pytest.mark.parametrize("command", commands("python -m", *PAGES.values()))
def test_training_commands_take_these_options(command: str) -> None:
    _, _, module, *arguments = shlex.split(command, comments=True)
    if absent := missing(ROOT.joinpath(*module.split(".")).with_suffix(".py")):
        pytest.skip(spell(absent))
    told = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for argument in arguments:
        assert not argument.startswith("--") or argument in told


@pytest.mark.parametrize(
    ("page", "target"),
    [(page, target) for page, text in PAGES.items() for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", text)],
)
def test_links_lead_somewhere(page: str, target: str) -> None:
    assert ((ROOT / page).parent / target).exists()


def test_settings_named_here_are_read() -> None:
    from captioner.graphs import CACHE_VARIABLE
    from service.config import PREFIX, ServiceConfig, variable

    defaults = {variable(name): field.default for name, field in ServiceConfig.__dataclass_fields__.items()}
    told = dict(re.findall(rf"^\| `({PREFIX}\w+)` \| .* \| (.+) \|$", README, flags=re.MULTILINE))
    assert list(told) == list(defaults)
    assert set(re.findall(rf"{PREFIX}\w+", README)) == {CACHE_VARIABLE, *defaults}
    in_words = {"CAPTIONER_MODELS", "CAPTIONER_CORES"}
    for name in set(told) - in_words:
        assert told[name] == (str(defaults[name]) if defaults[name] != () else "none"), name
