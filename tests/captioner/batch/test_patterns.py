"""Patterns: what a shell would have found, where it has not looked."""

from __future__ import annotations

import glob
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import names, plant

from captioner.batch.sources import find
from captioner.batch.trees import MAGIC
from captioner.errors import OptionError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("p/*.jpg", ["p/a.jpg", "p/b.jpg"]),
        ("./p/?.jpg", ["./p/a.jpg", "./p/b.jpg"]),
        ("p/[!b].*", ["p/a.jpg", "p/c.png"]),
        ("p/*/*.jpg", ["p/q/c.jpg"]),
        ("p/**/*.jpg", ["p/a.jpg", "p/b.jpg", "p/q/c.jpg", "p/q/r/d.jpg"]),
        ("p/**", ["p/a.jpg", "p/b.jpg", "p/c.png", "p/q/c.jpg", "p/q/r/d.jpg"]),
        ("**/**/r/*", ["p/q/r/d.jpg"]),
        ("*/*/*.jpg", ["p/q/c.jpg"]),
        ("p/*", ["p/a.jpg", "p/b.jpg", "p/c.png", "p/q/c.jpg"]),
        ("p/*/", ["p/q/c.jpg"]),
        ("p*/q/../a.jpg", []),
        ("p/*/c.jpg", ["p/q/c.jpg"]),
        ("p/*.dat", ["p/a.dat"]),
        ("p/*/notes", ["p/q/notes"]),
        ("p/.*.jpg", ["p/.e.jpg"]),
        ("p/**/.*.jpg", ["p/.e.jpg"]),
        ("p//*.png", ["p//c.png"]),
        ("*/c.png", ["p/c.png"]),
        ("p/*.JPG", []),
        ("gone/*.jpg", []),
        ("p/a.jpg/*", []),
    ],
)
def test_a_pattern_is_read_as_a_shell_does(pattern: str, expected: list[str]) -> None:
    plant("p/a.jpg", "p/b.jpg", "p/c.png", "p/a.dat", "p/.e.jpg", "p/._a.jpg", "p/q/c.jpg", "p/q/r/d.jpg", "p/q/notes")
    plant("p/.hidden/f.jpg", "p/@eaDir/g.jpg", "p/z/.keep")
    if expected:
        assert names(pattern) == expected
    else:
        with pytest.raises(OptionError, match="no picture matches"):
            find([pattern])


def test_a_pattern_finds_archives_and_walks_folders() -> None:
    plant("s/1/a.jpg", "s/1/deep/b.jpg")
    with tarfile.open("s/0.tar", "w") as archive:
        archive.add("s/1/a.jpg", "x.jpg")
    assert names("s/*") == ["s/0.tar/x.jpg", "s/1/a.jpg"]
    assert names("s/*", recursive=True) == ["s/0.tar/x.jpg", "s/1/a.jpg", "s/1/deep/b.jpg"]
    assert names("s/*.tar") == ["s/0.tar/x.jpg"]


def test_a_real_name_wins_over_the_pattern_it_could_be() -> None:
    plant("a[1].jpg", "a1.jpg", "*.png", "b.png", "d[x]/c.jpg", "dx/c.jpg")
    assert names("a[1].jpg") == ["a[1].jpg"]
    assert names("*.png") == ["*.png"]
    assert names("d[x]/*.jpg") == ["d[x]/c.jpg"]


PARTS = st.text("ab", min_size=1, max_size=2)
WILD = st.one_of(PARTS, st.sampled_from(["*", "**", "a*", "?", "[ab]", "[!a]", "*b", "??"]))


@given(
    st.sets(st.lists(PARTS, min_size=1, max_size=4).map("/".join), min_size=1, max_size=8),
    st.lists(WILD, min_size=1, max_size=4).filter(lambda parts: MAGIC.search("".join(parts))),
)
def test_patterns_find_the_files_that_the_standard_library_finds(files: set[str], pattern: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for file in files:
            path = root / f"{file}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        wanted = os.path.join(folder, *pattern)  # noqa: PTH118
        wanted += ".jpg" if pattern[-1] != "**" else ""
        expected = {path for path in glob.glob(wanted, recursive=True) if Path(path).is_file()}  # noqa: PTH207
        if pattern[-1] == "**":
            wanted += "/*.jpg"
        try:
            found = names(wanted)
        except OptionError:
            found = []
        assert set(found) == expected
        assert len(found) == len(set(found))
