"""Writing that fails, is stopped or must not be: what was there is there unchanged, and the reason is told."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import picture_files as files
import pytest

from captioner import metadata
from captioner.errors import CaptionerError, ImageError

TEXT = "a dog"


def check_nothing_changed(photo: Path, others: list[str] | None = None) -> None:
    assert photo.read_bytes() == files.PICTURES["photo.jpg"]
    assert photo.stat().st_mtime_ns == files.DATE
    assert files.names(photo.parent) == sorted(["photo.jpg", *(others or [])])


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write anywhere, so it becomes somebody who may not."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65_534)
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A photo in a folder that everybody reaches, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = files.write(folder / "photo.jpg", files.PICTURES["photo.jpg"])
        os.utime(path, ns=(files.SEEN, files.DATE))
        yield path
        folder.chmod(0o755)


def test_a_folder_that_must_not_be_written_to_is_told(shared: Path) -> None:
    shared.chmod(0o666)
    shared.parent.chmod(0o555)
    with as_nobody():
        for write in (metadata.embed, metadata.write_sidecar):
            with pytest.raises(
                CaptionerError, match=r"photo\.jpg.* cannot be written: .*write-prot.*nothing"
            ) as caught:
                write(shared, TEXT)
            assert caught.value.code == "not_written"
    check_nothing_changed(shared)


def test_a_file_that_must_not_be_written_to_is_told(shared: Path) -> None:
    shared.parent.chmod(0o777)
    shared.chmod(0o444)
    with as_nobody(), pytest.raises(CaptionerError, match=r"photo\.jpg cannot be written: it is write-protected"):
        metadata.embed(shared, TEXT)
    check_nothing_changed(shared)


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes two users")
def test_a_file_of_somebody_else_does_not_change_hands(shared: Path) -> None:
    shared.parent.chmod(0o777)
    shared.chmod(0o666)
    with as_nobody(), pytest.raises(CaptionerError, match=r"it is somebody else's.*run this as its owner"):
        metadata.embed(shared, TEXT)
    check_nothing_changed(shared)


def test_a_file_that_must_not_be_read_is_told(shared: Path) -> None:
    shared.chmod(0)
    with as_nobody(), pytest.raises(ImageError, match=r"photo\.jpg cannot be read: Permission denied"):
        metadata.embed(shared, TEXT)
    shared.chmod(0o644)
    check_nothing_changed(shared)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match=r"cannot be written: its folder does not exist"):
        metadata.write_sidecar(tmp_path / "missing" / "photo.jpg", TEXT)


def test_a_name_that_is_too_long_for_a_sidecar_is_told(tmp_path: Path) -> None:
    image = files.write(tmp_path / ("狗" * 83 + "a.jpg"), files.PICTURES["photo.jpg"])
    metadata.embed(image, TEXT)
    assert metadata.read_embedded(image) == TEXT
    with pytest.raises(CaptionerError, match=r"File name too long|its name is too long"):
        metadata.write_sidecar(image, TEXT)
    assert files.names(tmp_path) == [image.name]


FULL = """
import resource, sys
from pathlib import Path
from captioner import metadata
from captioner.errors import CaptionerError

limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for write in (metadata.embed, metadata.write_sidecar):
    try:
        write(Path(sys.argv[1]), "a dog")
    except CaptionerError as error:
        print(error.code, error)
"""


@pytest.mark.parametrize("limit", [0, 100])
def test_a_write_that_fails_half_way_changes_nothing(photo: Path, limit: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL, photo, str(limit)], capture_output=True, text=True, check=True, timeout=120
    )
    told = ran.stdout.splitlines()
    assert len(told) == 2
    assert all(line.startswith("not_written ") and "larger than is allowed here" in line for line in told)
    check_nothing_changed(photo)


# The disk is mounted for this process and its children only, so it is gone with them.
WITH_A_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'
FILL = """
import errno, sys
from pathlib import Path
from captioner import metadata
from captioner.errors import CaptionerError

photo, content = Path(sys.argv[1]) / "photo.jpg", sys.stdin.buffer.read()
photo.write_bytes(content)
try:
    (photo.parent / "filling").write_bytes(bytes(100_000))
except OSError as error:
    assert error.errno == errno.ENOSPC
for write in (metadata.embed, metadata.write_sidecar):
    try:
        write(photo, "a dog")
    except CaptionerError as error:
        print(error.code, error)
assert photo.read_bytes() == content
assert sorted(path.name for path in photo.parent.iterdir()) == ["filling", "photo.jpg"]
"""


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    try:
        subprocess.run([*WITH_A_DISK, MOUNT, tmp_path, "true"], capture_output=True, check=True, timeout=120)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file systems can be mounted here: {error}")
    ran = subprocess.run(
        [*WITH_A_DISK, MOUNT, tmp_path, sys.executable, "-c", FILL, tmp_path],
        input=files.PICTURES["photo.jpg"],
        capture_output=True,
        check=True,
        timeout=120,
    )
    told = ran.stdout.decode().splitlines()
    assert len(told) == 2
    assert all(line.startswith("not_written ") and "the disk is full; make room" in line for line in told)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_failure_at_any_step_changes_nothing(
    photo: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    for write in (metadata.embed, metadata.write_sidecar):
        with pytest.raises(CaptionerError, match=r"cannot be written: .*; nothing was changed"):
            write(photo, TEXT)
    check_nothing_changed(photo)


def test_an_interruption_changes_nothing(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        metadata.embed(photo, TEXT)
    check_nothing_changed(photo)


KILLED = """
import os, signal, sys
from pathlib import Path
from captioner import metadata

os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
metadata.embed(Path(sys.argv[1]), "a dog")
"""


def test_a_kill_leaves_the_old_file_and_a_hidden_one(photo: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", KILLED, photo], check=False, timeout=120)
    assert ran.returncode == -9
    (left,) = [name for name in files.names(photo.parent) if name != "photo.jpg"]
    assert left.startswith(".photo.jpg.")
    assert left.endswith(".partial")
    check_nothing_changed(photo, [left])
    assert files.exiv2_alt_text((photo.parent / left).read_bytes()) == "a dog"


def test_a_file_that_another_program_changes_meanwhile_is_its(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def change(descriptor: int) -> None:
        sync(descriptor)
        files.write(photo, b"theirs")

    monkeypatch.setattr(os, "fsync", change)
    with pytest.raises(CaptionerError, match="another program has just changed it; try again"):
        metadata.embed(photo, TEXT)
    assert photo.read_bytes() == b"theirs"
    assert files.names(photo.parent) == ["photo.jpg"]
    photo.unlink()
    monkeypatch.setattr(os, "fsync", lambda _: files.write(metadata.sidecar_of(photo), b"theirs"))
    with pytest.raises(CaptionerError, match="another program has just changed it"):
        metadata.write_sidecar(photo, TEXT)
    assert metadata.sidecar_of(photo).read_bytes() == b"theirs"


def test_nobody_reads_the_new_file_who_could_not_read_the_old_one(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo.chmod(0o600)
    created = os.open
    modes = []

    def watch(path: Path, flags: int, mode: int = 0o777, **options: int | None) -> int:
        if flags & os.O_CREAT:
            modes.append(mode)
        return created(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", watch)
    metadata.embed(photo, TEXT)
    assert modes == [0o600]
    assert stat.S_IMODE(photo.stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_forced_to_the_disk_is_no_failure(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def fail_for_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_for_folders)
    metadata.embed(photo, TEXT)
    assert metadata.read(photo) == TEXT
