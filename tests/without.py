"""A virtual environment like the one that runs this, but for some packages: for tests that must pass without them.

python tests/without.py FOLDER PACKAGE…

Nothing is fetched or built, and little is written: the files are the same ones, under a second name.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path


def make_environment(folder: Path, packages: Sequence[str]) -> None:
    """Make the environment.

    Args:
        folder: for the environment, on the disk that this one is on; an environment that is there is replaced.
        packages: what is to be missing, by distribution; where one is missing already, so it stays.
    """
    folder = folder.absolute()
    venv.create(folder, clear=True, symlinks=True)
    ours, theirs = (Path(sysconfig.get_path("purelib", "venv", {"base": str(at)})) for at in (Path(sys.prefix), folder))
    shutil.copytree(ours, theirs, copy_function=os.link, dirs_exist_ok=True)
    link_commands(Path(sys.prefix) / "bin", folder / "bin")
    # Uninstalling takes names away and leaves the files to those that still have one.
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "uninstall", "--quiet", "--disable-pip-version-check", "--yes", *packages], check=True
    )


def link_commands(ours: Path, theirs: Path) -> None:
    """Put the commands of an environment into another, scripts with the path of its Python in place of their own."""
    for command in ours.iterdir():
        other = theirs / command.name
        if other.exists():
            continue
        content = command.read_bytes()
        if content.startswith(b"#!"):
            other.write_bytes(content.replace(f"{ours}/".encode(), f"{theirs}/".encode()))
            shutil.copymode(command, other)
        else:
            os.link(command, other)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Make an environment without some packages.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("packages", nargs="+", metavar="PACKAGE")
    options = parser.parse_args(arguments)
    if sys.prefix == sys.base_prefix:
        parser.error("run this by the Python of the environment that is to be copied")
    if options.folder.exists() and not (options.folder / "pyvenv.cfg").is_file():
        parser.error(f"{options.folder} is there and no virtual environment: name another folder")
    make_environment(options.folder, options.packages)


if __name__ == "__main__":
    main()
