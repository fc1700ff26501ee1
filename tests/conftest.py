"""Tiny pictures and models that every room's tests share; what is missing here, and which tests are left out for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import prepared
import pytest
from chromium import CHROMIUM, DRIVER, Browser, start
from hypothesis import settings
from installed import HAS_TORCH, MISSING, TORCH, missing, spell
from PIL import Image
from tiny import make_info, make_model

import captioner
from captioner.checkpoint import BUNDLED, ModelInfo, bundled_models, save_model
from captioner.errors import DependencyError
from captioner.graphs import FOLDER, cache_directory, graphs_of

if TYPE_CHECKING:
    from captioner.model import CaptionModel

settings.register_profile("captioner", deadline=None)  # on a busy machine a deadline is a matter of luck
settings.load_profile("captioner")


# What is missing

UNPREPARED = f"{spell(MISSING.intersection(TORCH))}; without it this needs --prepared=FOLDER, see tests/prepared.py"


class LeftOut(pytest.File):
    """A file of tests, or a folder of them by its conftest.py, that cannot be imported here."""

    def collect(self) -> Iterator[pytest.Item]:
        """Nothing: it is reported as skipped, with what is missing."""
        file = self.path.relative_to(self.config.rootpath)
        place = file.parent if file.name == "conftest.py" else file
        return pytest.skip(f"{place} is left out; {spell(missing(self.path))}", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return LeftOut.from_parent(parent, path=module_path) if missing(module_path) else None


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    own = path / "conftest.py"
    return LeftOut.from_parent(parent, path=own) if own.is_file() and missing(own) else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--prepared",
        type=lambda folder: Path(folder).absolute(),  # tests may leave this directory
        metavar="FOLDER",
        help="where torch is not installed: what tests/prepared.py made where it is (write --prepared=FOLDER)",
    )


def pytest_report_header() -> str | None:
    return spell(MISSING) if MISSING else None


# Models


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    if HAS_TORCH:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[None]:
    """What is exported here stays out of the user's cache, and what batches remember out of his home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPTIONER_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        if (folder := pytestconfig.getoption("prepared")) and not HAS_TORCH:
            shutil.copytree(folder / FOLDER, cache_directory())
        yield


@pytest.fixture(scope="session")
def tiny_info() -> ModelInfo:
    """See :func:`tiny.make_info`."""
    return make_info()


@pytest.fixture(scope="session")
def tiny_model(tiny_info: ModelInfo) -> CaptionModel:
    """See :func:`tiny.make_model`."""
    if not HAS_TORCH:
        pytest.skip(spell(MISSING.intersection(TORCH)))
    return make_model(tiny_info)


@pytest.fixture(scope="session")
def tiny_model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model on disk; without torch, the one that was made beforehand, which the graphs in the cache are of."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    if HAS_TORCH:
        save_model(directory, request.getfixturevalue("tiny_model"), request.getfixturevalue("tiny_info"))
    elif folder := request.config.getoption("prepared"):
        shutil.copytree(folder / prepared.NAME, directory)
    else:
        pytest.skip(UNPREPARED)
    return directory


@pytest.fixture(scope="session")
def tiny_captioner(tiny_model_dir: Path) -> captioner.Captioner:
    """The tiny model on the CPU in fp32: under torch, or without it under what there is."""
    return captioner.load(tiny_model_dir, engine="torch" if HAS_TORCH else "auto", device="cpu")


@pytest.fixture(scope="session")
def bundled() -> None:
    """Skips where the bundled models cannot run: without torch, unless their graphs are there."""
    if not HAS_TORCH:
        try:
            for name in bundled_models():
                with graphs_of(BUNDLED / name):
                    pass
        except DependencyError:
            pytest.skip(UNPREPARED)


# Reports


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[pytest.TestReport]:
    """What a test has printed of names that are no text goes from process to process as text all the same."""
    report: pytest.TestReport = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


# Pictures


@pytest.fixture
def picture() -> Image.Image:
    """A small picture with structure: a gradient with a bright square."""
    x, y = np.meshgrid(np.arange(80), np.arange(60))
    pixels = np.stack((x * 3, y * 4, 255 - x * 3), axis=-1).astype(np.uint8)
    pixels[20:40, 30:50] = 255
    return Image.fromarray(pixels)


@pytest.fixture
def photo(picture: Image.Image, tmp_path: Path) -> Path:
    """The picture as a JPEG file."""
    path = tmp_path / "photo.jpg"
    picture.save(path, quality=95)
    return path


# Browsers


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("there is no Chromium with its driver here")
    with start(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
