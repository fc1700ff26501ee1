"""The pinned files and the extras of pyproject.toml say the same, and what serves names no torch."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from installed import MISSING, spell
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FILES = sorted(path.name for path in ROOT.glob("requirements*.txt"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
# Which file pins what an extra names.
PINNED_BY = {
    "": "requirements-serve.txt",
    "onnxruntime": "requirements-serve.txt",
    "serve": "requirements-serve.txt",
    "torch": "requirements.txt",
    "speech": "requirements-speech.txt",
    "train": "requirements-train.txt",
    "openvino": "requirements.txt",
    "heif": "requirements-batch.txt",
    "parquet": "requirements-batch.txt",
    "remote": "requirements-batch.txt",
    "ray": "requirements-cluster.txt",
    "dev": "requirements-dev.txt",
}
TORCH = {"torch", "torchvision", "onnx", "sympy"}


def lines(file: str) -> list[str]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(file: str) -> dict[str, str]:
    """Versions by name, those of the files that it includes among them."""
    found: dict[str, str] = {}
    for line in lines(file):
        if line.startswith("-r "):
            found |= pins(line.removeprefix("-r "))
        else:
            name, version = line.split("==")
            found[canonicalize_name(name)] = version
    return found


def direct(extra: str) -> list[Requirement]:
    """What an extra names, but for other extras."""
    named = map(Requirement, EXTRAS[extra])
    return [requirement for requirement in named if requirement.name != PROJECT["name"]]


def needed(extra: str) -> set[str]:
    """Names of all that an extra brings, as the packages installed here tell it."""
    found: set[str] = set()
    waiting = direct("") + direct(extra)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in found:
            found.add(name)
            for text in requires(name) or []:
                further = Requirement(text)
                extras = requirement.extras or {""}
                if further.marker is None or any(further.marker.evaluate({"extra": one}) for one in extras):
                    waiting.append(further)
    return found


@pytest.mark.parametrize("file", FILES)
def test_everything_is_pinned_and_in_one_place(file: str) -> None:
    own = [line for line in lines(file) if not line.startswith("-r ")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in own)
    included = [pins(line.removeprefix("-r ")) for line in lines(file) if line.startswith("-r ")]
    names = [canonicalize_name(line.split("==")[0]) for line in own]
    assert len(set(names)) == len(names)
    assert not {name for name in names if any(name in other for other in included)}


@pytest.mark.parametrize("file", ["requirements-serve.txt", "requirements-speech.txt"])
def test_what_serves_names_no_torch(file: str) -> None:
    assert not pins(file).keys() & TORCH
    assert pins("requirements.txt").keys() > TORCH


@pytest.mark.parametrize("file", ["requirements.txt", *sorted(set(FILES) - {"requirements.txt"})])
def test_every_file_holds_what_serves(file: str) -> None:
    assert pins(file).items() >= pins("requirements-serve.txt").items()


def test_each_extra_has_a_file() -> None:
    assert PINNED_BY.keys() == EXTRAS.keys()


@pytest.mark.parametrize("extra", PINNED_BY)
def test_what_an_extra_names_is_pinned_to_a_version_that_it_allows(extra: str) -> None:
    found = pins(PINNED_BY[extra])
    for requirement in direct(extra):
        assert requirement.specifier.contains(found[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("extra", ["", "onnxruntime", "serve", "speech", "train", "openvino", "heif", "parquet"])
def test_what_an_extra_brings_is_pinned(extra: str) -> None:
    if absent := MISSING.intersection(requirement.name for requirement in direct(extra)):
        pytest.skip(spell(absent))
    left = needed(extra) - pins(PINNED_BY[extra]).keys()
    assert not left
