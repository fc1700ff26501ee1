"""A photo on the disk that was not taken today."""

from __future__ import annotations

import os
from pathlib import Path

import picture_files as files
import pytest


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = files.write(tmp_path / "photo.jpg", files.PICTURES["photo.jpg"])
    os.utime(path, ns=(files.SEEN, files.DATE))
    return path
