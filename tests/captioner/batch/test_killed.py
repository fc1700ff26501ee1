"""Killed at any moment, a run is finished by the next one, and nobody can tell from what it leaves behind."""

from __future__ import annotations

import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from running import KILLED, main, run, tree, write_pictures

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of Unix")

# As the names of audit events tell it: before a picture is read, before a file gets its name, before one is removed.
# A table's own file is named once, and then the record is removed.
KILLS = {
    "jsonl": ["open:14", "open:12", "os.rename:1", "os.remove:2"],
    "csv": ["open:22", "os.rename:1"],
    "txt": ["os.rename:3", "open:30", "os.rename:1", "os.rename:6"],
    "xmp": ["open:35", "os.rename:7", "os.rename:2"],
    "embed": ["open:30", "os.rename:6", "os.rename:2"],
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with pictures, some of them duplicates and some no pictures."""
    folder = tmp_path / "whole"
    write_pictures(folder / "photos", 22)
    write_pictures(folder / "photos/sub", 4, first=30)
    for number in (3, 17):
        (folder / f"photos/{number:03}.jpg").write_bytes(b"no picture")
    for number in (5, 20):
        shutil.copy(folder / "photos/001.jpg", folder / f"photos/{number:03}.jpg")
    with tarfile.open(folder / "shard.tar", "w") as archive:
        archive.add(folder / "photos", arcname="in")
    return folder


@pytest.fixture
def both(
    here: Path, first: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """Runs a command as a whole, and in a copy killed several times; compares what they leave."""

    def compare(kills: list[str], *arguments: object) -> None:
        broken = shutil.copytree(here, here.with_name("broken"))
        arguments = (*first, "--prefix", "seen: ", *arguments)
        monkeypatch.chdir(here)
        assert main(arguments) == 1, capsys.readouterr().err
        for kill in kills:
            done = run(arguments, cwd=broken, killed_at=kill)
            assert done.returncode == KILLED, (kill, done.stderr)
        monkeypatch.chdir(broken)
        assert main(arguments) == 1, capsys.readouterr().err
        assert tree(broken) == tree(here)
        assert not [path for path in broken.rglob("*") if path.name.startswith(".")]

    return compare


Both = Callable[..., None]


@pytest.mark.parametrize("format_", KILLS)
def test_a_killed_run_is_finished_as_if_nothing_had_happened(both: Both, format_: str) -> None:
    output = ["--output", f"out.{format_}"] if format_ in ("jsonl", "csv") else []
    both(KILLS[format_], "photos", "--recursive", "--format", format_, *output)


def test_only_the_same_captions_go_on(here: Path, first: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*first, here / "photos", "--output", here / "out.jsonl"]
    assert run(arguments, killed_at="open:14").returncode == KILLED
    for others, told in (
        (["--prefix", "x"], '--prefix was "", not "x"'),
        (["--beam-size", 2, "--n-best", 2], "--beam-size was 3, not 2; --n-best was 1, not 2"),
        (["--on-existing", "overwrite"], '--on-existing was "skip", not "overwrite"'),
        (["--format", "csv"], '--format was "jsonl", not "csv"'),
    ):
        assert main([*arguments, *others]) == 2
        assert f"begun otherwise: {told}. Finish it with the same options, or remove" in capsys.readouterr().err
    assert main([*arguments, "--batch-size", 3]) == 1
    assert not (here / "out.jsonl.progress").exists()


def test_so_is_one_that_appends(both: Both, here: Path, first: list[object]) -> None:
    assert main([*first, here / "photos", "--output", here / "out.jsonl"]) == 1
    both(["open:14", "os.rename:1", "os.remove:2"], "photos", "--output", "out.jsonl", "--on-existing", "append")


def test_so_is_one_that_appends_lines(both: Both, here: Path) -> None:
    for number in range(22):
        (here / f"photos/{number:03}.txt").write_text("my own\n", encoding="utf-8")
    both(["os.rename:3", "os.rename:7"], "photos", "--format", "txt", "--on-existing", "append")


def test_so_is_one_that_reads_an_archive(both: Both) -> None:
    both(["os.rename:3", "os.rename:9"], "shard.tar", "--format", "txt", "--output", "to")


def test_so_is_one_that_tries_again(
    both: Both, here: Path, first: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    assert main([*first, "photos", "--output", "out.jsonl"]) == 1
    write_pictures(here / "photos", 4)  # of the two that failed, one
    both(["open:2", "os.rename:1"], "photos", "--output", "out.jsonl", "--retry-failed")
