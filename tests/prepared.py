"""What tests need torch for, made beforehand: the tiny model, and the graphs of it and of the bundled models.

python tests/prepared.py FOLDER

Where torch is not installed, ``pytest --prepared=FOLDER`` takes them from there. Models or code that have changed since
ask for another run, which keeps what is still right.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tiny import make_info, make_model

from captioner.checkpoint import BUNDLED, bundled_models, save_model
from captioner.graphs import FOLDER, make

NAME = "tiny"


def prepare(folder: Path) -> None:
    """Fill a folder: ``tiny``, the model, and ``graphs``, laid out as in the user's cache."""
    info = make_info()
    save_model(folder / NAME, make_model(info), info)
    for model in (folder / NAME, *(BUNDLED / name for name in bundled_models())):
        make(model, folder / FOLDER)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
