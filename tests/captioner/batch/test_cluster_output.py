"""Where a cluster's parts are written to, and what the command makes of its options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from clustered import caption, rows, without_ray
from installed import needs_runtime
from running import write_pictures

from captioner.batch.cluster import sessions
from captioner.batch.cluster.folder import Folder
from captioner.batch.cluster.parts import Part, Source
from captioner.batch.cluster.stores import Disk, open_store
from captioner.batch.interrupts import STOPPED, Interrupts
from captioner.batch.outputs.replacing import OutputError
from captioner.cli import main
from captioner.errors import DependencyError, OptionError

PART = Part(0, (Source("a", "/a"),))
LINE = json.dumps({"image": "a", "error": "gone \udcff", "code": "image_not_found"})


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "NEEDED", ("pyarrow",))
    without_ray(monkeypatch)


@pytest.fixture(params=["path", "file", "local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on a disk or behind a URL: a store that has files at once, and one that does not."""
    if request.param == "path":
        return str(tmp_path / "out")
    fsspec = pytest.importorskip("fsspec")
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
    return f"{request.param}://{tmp_path}/new/out"


def test_files_are_replaced_as_a_whole(place: str) -> None:
    store = open_store(place)
    assert store.names() == []
    for content in (b"old", b"new"):
        store.write("a", content)
        store.write("b", content)
        with store.open("a") as file:
            assert file.read() == content
    assert sorted(store.names()) == ["a", "b"]
    store.remove("a")
    assert store.names() == ["b"]
    with pytest.raises(OutputError):
        store.open("a")


def test_half_written_files_are_swept_up(place: str) -> None:
    store = open_store(place)
    store.write(".part-000000.parquet.0123abcd.partial", b"half")
    store.write("part-000000.parquet", b"whole")
    assert store.names() == ["part-000000.parquet"]
    assert open_store(place).names() == ["part-000000.parquet"]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("steps", range(5))
def test_a_file_that_is_being_replaced_is_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, steps: int
) -> None:
    """Whatever step is the last: the store lets only so many through."""
    fsspec = pytest.importorskip("fsspec")
    store = open_store(f"local://{tmp_path}/out")
    if there:
        store.write("manifest.json", b"old")
    system, left = type(fsspec.filesystem("local")), steps

    def limited(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            nonlocal left
            if not left:
                raise OSError("the disk is gone")
            left -= 1
            return method(*given, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("pipe_file", "mv", "rm_file"):
            patch.setattr(system, name, limited(getattr(system, name)))
        if steps < (4 if there else 2):
            with pytest.raises(OutputError, match="the disk is gone"):
                store.write("manifest.json", b"new")
        else:
            store.write("manifest.json", b"new")
    store = open_store(f"local://{tmp_path}/out")
    if not there and steps < 2:
        assert store.names() == []
    else:
        assert store.names() == ["manifest.json"]
        with store.open("manifest.json") as file:
            assert file.read() == (b"old" if there and steps < 3 else b"new")
    assert [path.name for path in (tmp_path / "out").iterdir()] == store.names()


def test_a_folder_that_cannot_be_looked_into_is_told(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "out"))
    (tmp_path / "out/folder").mkdir()
    with pytest.raises(OutputError, match=r"folder cannot be removed: "):
        store.remove("folder")
    (tmp_path / "out/folder").rmdir()
    (tmp_path / "out").rmdir()
    with pytest.raises(OutputError, match=r"out cannot be read: No such file"):
        store.names()
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(OutputError, match=r"out cannot be read: Not a directory"):
        store.names()


def test_an_output_that_is_begun_afresh_is_never_half_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it is removed, nothing is left that says it is complete."""
    folder = Folder(str(tmp_path))
    folder.begin({}, afresh=False)
    folder.write(PART, [LINE], 1, 1)
    folder.finish([])
    removed: list[str] = []
    remove = Disk.remove

    def die(self: Disk, name: str) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(name)
        remove(self, name)

    monkeypatch.setattr(Disk, "remove", die)
    with pytest.raises(KeyboardInterrupt):
        Folder(str(tmp_path)).begin({}, afresh=True)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(("own", "given"), [({"--old": 1}, {}), ({}, {"--old": 1})])
def test_a_setting_that_another_version_has_is_refused(
    tmp_path: Path, own: dict[str, int], given: dict[str, int]
) -> None:
    Folder(str(tmp_path)).begin(own, afresh=False)
    with pytest.raises(OptionError, match="begun otherwise: --old was"):
        Folder(str(tmp_path)).begin(given, afresh=False)


def test_parts_are_found_again_with_what_they_say_of_themselves(place: str) -> None:
    folder = Folder(place)
    assert folder.begin({"--model": ["tiny"]}, afresh=False) == {}
    folder.write(PART, [LINE], 1, 1)
    (facts,) = Folder(place).begin({"--model": ["tiny"]}, afresh=False).values()
    assert (facts.digest, facts.pictures, facts.failed) == (PART.digest, 1, 1)
    with pytest.raises(OptionError, match=r'--model was \["tiny"\], not \["other"\]'):
        Folder(place).begin({"--model": ["other"]}, afresh=False)
    assert Folder(place).begin({"--model": ["other"]}, afresh=True) == {}
    assert open_store(place).names() == ["manifest.json"]


def test_what_is_no_text_is_spelt_out(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.begin({}, afresh=False)
    folder.write(PART, [LINE], 1, 1)
    assert rows(tmp_path) == [{"image": "a", "error": "gone \\udcff", "code": "image_not_found"}]


def test_what_is_not_captioners_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    Folder(str(tmp_path)).begin({}, afresh=True)
    assert (tmp_path / "notes.txt").exists()


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part-000003.parquet").write_bytes(b"")
    with pytest.raises(OptionError, match="holds parts but no manifest"):
        Folder(str(tmp_path)).begin({}, afresh=False)
    for damaged in ("[]", '{"settings": 5, "format_version": 1}'):
        (tmp_path / "manifest.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(OptionError, match="is damaged"):
            Folder(str(tmp_path)).begin({}, afresh=False)
    (tmp_path / "manifest.json").write_text('{"settings": {}, "format_version": 99}', encoding="utf-8")
    with pytest.raises(OptionError, match="another version"):
        Folder(str(tmp_path)).begin({}, afresh=False)
    (tmp_path / "manifest.json").write_text('{"settings": {}, "format_version": 1}', encoding="utf-8")
    with pytest.raises(OutputError, match=r"part-000003\.parquet .* is damaged: remove it"):
        Folder(str(tmp_path)).begin({}, afresh=False)


def test_an_output_that_cannot_be_had_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OptionError, match="is a file: name a folder"):
        open_store(str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot be made"):
        open_store(str(tmp_path / "file/below"))
    pytest.importorskip("fsspec")
    with pytest.raises(OptionError, match="nonsense:// URLs cannot be written to"):
        open_store("nonsense://x")


def test_a_ray_that_does_not_start_here_is_not_told_to_start_here() -> None:
    error = sessions._no_cluster("local", RuntimeError("no room\nat all"))
    assert "does not start on this machine (no room)" in str(error)
    assert "--ray local" not in str(error)
    assert "give --ray local" in str(sessions._no_cluster("auto", RuntimeError("")))


def test_a_store_whose_package_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(DependencyError, match=r"captioner\[remote\]"):
        open_store("s3://bucket")


@needs_runtime
def test_parts_may_lie_behind_a_url(tiny_model_dir: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    write_pictures(tmp_path / "photos", 6)
    caption(tiny_model_dir, tmp_path / "near", tmp_path / "photos", part_size=4)
    url = "memory://bucket/far"
    assert caption(tiny_model_dir, url, tmp_path / "photos", part_size=4).tally.captioned == 6
    assert caption(tiny_model_dir, url, tmp_path / "photos", part_size=4).tally.known == 6
    fsspec.filesystem("memory").get("/bucket/far", str(tmp_path / "far"), recursive=True)
    assert rows(tmp_path / "far") == rows(tmp_path / "near")


# the command


Command = Callable[..., int]


@pytest.fixture
def command(tiny_model_dir: Path, tmp_path: Path) -> Command:
    """``captioner batch photos --output out --ray local`` and more."""
    usual = ["--ray", "local", "--ray-cpus", 1, "--model", tiny_model_dir, "--output", tmp_path / "out"]
    return lambda *more: main(["batch", *map(str, [*usual, tmp_path / "photos", *more])])


@needs_runtime
def test_the_command_tells_what_failed_and_what_was_done(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_ = write_pictures(tmp_path / "photos", 6)
    good = first.read_bytes()
    first.write_bytes(b"none")
    assert command() == 1
    out, told = capsys.readouterr()
    assert not out
    assert f"captioner: {first}: the image has no known image format" in told
    assert "captioner: 5 captioned, 1 failed; " in told
    assert command() == 1
    assert "1 failed in an earlier run; --retry-failed tries again" in capsys.readouterr().err
    first.write_bytes(good)
    assert command("--retry-failed") == 0
    assert command() == 0
    assert "0 captioned, 0 failed, 6 done before" in capsys.readouterr().err


@needs_runtime
def test_the_command_stops_when_it_is_told_to(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "photos", 6)
    monkeypatch.setattr(Interrupts, "__enter__", lambda self: setattr(self, "stopping", True) or self)
    assert command() == STOPPED
    assert "the same command goes on with the parts that are missing" in capsys.readouterr().err


@needs_runtime
def test_names_cannot_write_to_the_terminal(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first,) = write_pictures(tmp_path / "photos", 1)
    first.write_bytes(b"none")
    first.rename(first.with_name("\x1b]0;owned\x07\n.jpg"))
    assert command() == 1
    told = capsys.readouterr().err
    assert r"\x1b]0;owned\x07\n.jpg" in told
    assert "\x1b" not in told
    assert len(told.splitlines()) == 2  # and the summary


@needs_runtime
def test_the_command_writes_behind_a_url(command: Command, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    write_pictures(tmp_path / "photos", 6)
    for place in ("memory://bucket/out", f"local://{tmp_path}/far"):
        assert command("--output", place) == 0
    assert fsspec.filesystem("memory").exists("/bucket/out/part-000000.parquet")
    assert len(rows(tmp_path / "far")) == 6


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("--format csv", "leave --format csv out"),
        ("--shard 0/2", "leave --shard out"),
        ("--progress x", "leave --progress out"),
        ("--threads 2", "leave --threads out"),
        ("--on-existing append", "skip or overwrite"),
        (
            "--retry-failed --on-existing overwrite",
            "--retry-failed goes on with what is there: leave --on-existing overwrite out",
        ),
        ("--batch-size 0", "--batch-size must be"),
        ("--ray-workers 0", "--ray-workers must be"),
        ("--ray-cpus 0", "--ray-cpus must be"),
        ("--ray-gpus -1", "--ray-gpus must not"),
        ("--ray-gpus 1.5", "must be whole"),
        ("--part-size 0", "--part-size must be"),
        ("--ray ray://host:10001", "give the command on a machine of the cluster"),
    ],
)
def test_what_does_not_go_with_a_cluster_is_refused(
    command: Command, capsys: pytest.CaptureFixture[str], more: str, told: str
) -> None:
    assert command(*more.split()) == 2
    assert told in capsys.readouterr().err


def test_a_cluster_wants_something_to_do_and_somewhere_to_put_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["batch", "--ray", "local", "--output", str(tmp_path)]) == 2
    assert "give an INPUT" in capsys.readouterr().err
    assert main(["batch", "--ray", "local", str(tmp_path)]) == 2
    assert "give --output FOLDER" in capsys.readouterr().err
