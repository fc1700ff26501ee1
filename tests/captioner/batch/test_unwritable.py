"""Full disks and closed folders: told in a sentence, and nothing is lost that was there."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from running import main, run, start, tree, write_pictures

if sys.platform != "win32":
    import resource

Command = Callable[..., int]
Capture = pytest.CaptureFixture[str]

needs_unix = pytest.mark.skipif(sys.platform == "win32", reason="needs the limits of Unix")


def closed_to_this_process(folder: Path) -> bool:
    """Whether rights mean anything to whoever runs this."""
    probe = folder / "probe"
    probe.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    try:
        (probe / "x").touch()
    except OSError:
        return True
    return False


@pytest.fixture
def rights(tmp_path: Path) -> None:
    if not closed_to_this_process(tmp_path):
        pytest.skip("nothing is closed to the superuser")


def limit(size: int) -> Callable[[], None]:
    """Files may have so many bytes: what is written beyond that fails, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@needs_unix
@pytest.mark.parametrize("size", [0, 8_000, 60_000, 150_000])
def test_a_record_that_cannot_grow_stops_the_run_and_is_gone_on_with(
    tmp_path: Path, first: list[object], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "photos", 60)
    arguments = [*first, "photos", "--output", "out.jsonl"]
    assert main([*arguments[:-1], "whole.jsonl"]) == 0
    done = run(arguments, cwd=tmp_path, preexec_fn=limit(size))
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("captioner: cannot write out.jsonl.progress: ")
    assert "give the same command again" in last
    assert "Traceback" not in done.stderr
    assert not Path("out.jsonl").exists()
    assert main(arguments) == 0
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "photos", "whole.jsonl"]


@needs_unix
def test_a_table_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, first: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "photos", 60)
    assert main([*first, "photos/000.jpg", "--output", "out.jsonl"]) == 0
    before = Path("out.jsonl").read_bytes()
    arguments = [*first, "photos", "--output", "out.jsonl", "--n-best", 20, "--progress", "far.progress"]
    # The record is larger than the limit; but a run that is killed before it writes the table has written all of it.
    assert run(arguments, cwd=tmp_path, killed_at="os.rename:1").returncode != 0
    for path in tmp_path.glob(".out.jsonl*"):
        path.unlink()
    done = run(arguments, cwd=tmp_path, preexec_fn=limit(20_000))
    assert done.returncode == 1, done.stderr
    assert "out.jsonl: File too large. What is done is kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert Path("out.jsonl").read_bytes() == before
    assert not list(tmp_path.glob(".out*"))
    assert main(arguments) == 0
    assert len(Path("out.jsonl").read_bytes().splitlines()) == 60


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_stops_a_run_that_writes_files(
    batch: Command, capsys: Capture, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write_pictures(Path("photos"), 20)
    real, written = os.fsync, []

    def fsync(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            written.append(descriptor)
            if len(written) > 6:
                raise OSError(number, os.strerror(number))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        assert batch("photos", "--format", "txt") == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("captioner: ")
    assert "cannot be written: the " in told
    assert len([*Path("photos").glob("*.txt")]) == 6
    assert not [*Path("photos").glob(".*")]
    assert batch("photos", "--format", "txt") == 0
    assert "16 captioned, 0 failed, 4 done before" in capsys.readouterr().err
    assert len([*Path("photos").glob("*.txt")]) == 20


def test_a_read_only_folder_is_told_before_anything_is_captioned(rights: None, batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 3)
    write_pictures(Path("photos/sub"), 3)
    Path("photos/sub").chmod(0o500)
    before = tree(Path())
    assert batch("photos/sub", "--output", "photos/sub/out.jsonl") == 1
    assert "cannot write photos/sub/out.jsonl.progress: unable to open" in capsys.readouterr().err
    assert tree(Path()) == before
    for format_ in ("txt", "xmp", "embed"):
        assert batch("photos", "--recursive", "--format", format_, "--prefix", "seen: ") == 1
        told = capsys.readouterr().err
        assert told.count("the folder photos/sub cannot be written to: see to its permissions") == 3
        assert "3 captioned, 3 failed" in told
    Path("photos/sub").chmod(0o700)
    assert batch("photos", "--recursive", "--format", "txt", "--retry-failed") == 0


def test_a_closed_folder_is_told(rights: None, batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 1)
    Path("closed").mkdir()
    Path("closed").chmod(0)
    assert batch("photos", "--output", "closed/out.jsonl") == 1
    assert "cannot write closed/out.jsonl: Permission denied" in capsys.readouterr().err
    assert batch("photos", "closed/001.jpg", "--format", "txt", "--output", "closed/to") == 1
    assert "the folder closed/to cannot be made: Permission denied" in capsys.readouterr().err
    assert batch("photos", "closed/001.jpg", "--format", "txt") == 1
    told = capsys.readouterr().err
    assert "1 captioned, 1 failed" in told
    assert "closed/001.jpg" in told


def test_a_read_only_file_fails_alone(rights: None, batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 3)
    Path("photos/001.jpg").chmod(0o400)
    before = Path("photos/001.jpg").read_bytes()
    assert batch("photos", "--format", "embed", "--prefix", "seen: ") == 1
    assert "photos/001.jpg cannot be written: it is write-protected" in capsys.readouterr().err
    assert Path("photos/001.jpg").read_bytes() == before


def test_a_picture_that_is_closed_fails_alone(rights: None, batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 3)
    Path("photos/001.jpg").chmod(0)
    assert batch("photos", "--output", "out.jsonl") == 1
    assert "photos/001.jpg cannot be opened: Permission denied" in capsys.readouterr().err
    Path("photos/001.jpg").chmod(0o600)
    assert batch("photos", "--output", "out.jsonl", "--retry-failed") == 0


def test_who_has_no_home_is_told_to_name_a_file(
    batch: Command, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object, **__: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    write_pictures(Path("photos"), 1)
    monkeypatch.setattr("platformdirs.user_state_path", nowhere)
    assert batch("photos", "--format", "txt") == 1
    assert "Name a file for it with --progress" in capsys.readouterr().err
    assert batch("photos", "--format", "txt", "--progress", "record") == 0


def test_two_runs_do_not_share_an_output(tmp_path: Path, first: list[object], batch: Command, capsys: Capture) -> None:
    write_pictures(Path("photos"), 9)
    with start([*first, "--output", "out.jsonl", "-"], stdin=subprocess.PIPE, cwd=Path.cwd()) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write("".join(f"photos/{number:03}.jpg\n" for number in range(8)) + "gone.jpg\n" * 4)
        process.stdin.flush()
        process.stderr.readline()
        assert batch("photos", "--output", "out.jsonl") == 1
        assert "another run is writing the same output" in capsys.readouterr().err
        process.stdin.close()
        process.wait()
    assert batch("photos", "--output", "out.jsonl") in (0, 1)
