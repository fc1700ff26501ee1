"""The study of the toys, done and to be done."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_study import TOY_SETTINGS, write_study

from training.compare import Workshop, run_all
from training.studies.study import Study, load_study


@pytest.fixture(scope="session")
def settings(toy_weights: Path) -> list[str]:
    return [*TOY_SETTINGS, f"encoder_weights={toy_weights}"]


@pytest.fixture
def study(tmp_path: Path, settings: list[str]) -> Study:
    return load_study(write_study(tmp_path), settings)


@pytest.fixture(scope="session")
def whole(toy_data: Path, toy_cache: Path, settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A shop in which the study of the toys is done. Read it only."""
    folder = tmp_path_factory.mktemp("study")
    shop = Workshop("toys", toy_data, folder, toy_cache, "simple")
    assert run_all(shop, load_study(write_study(folder), settings).plan()) == []
    return shop


@pytest.fixture
def shop(toy_data: Path, toy_cache: Path, tmp_path: Path) -> Workshop:
    """An empty one."""
    return Workshop("toys", toy_data, tmp_path / "runs", toy_cache, "simple")
