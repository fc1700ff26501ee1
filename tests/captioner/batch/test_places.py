"""Where the files of pictures lie, and that no two of them share one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.batch.outputs.files import TextFiles
from captioner.batch.outputs.places import Places
from captioner.batch.outputs.replacing import OutputError
from captioner.batch.pictures import Picture, file_picture
from captioner.batch.sources import find


def member(name: str) -> Picture:
    return Picture(name, None, lambda: b"")


def place(inputs: Sequence[str], name: str) -> str:
    return PurePosixPath(Places(inputs, Path("to")).of(member(name)).as_posix()).relative_to("to").as_posix()


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ("photos", "photos/a.jpg", "a.jpg"),
        ("photos/", "photos/sub/a.jpg", "sub/a.jpg"),
        ("./photos", "./photos/a.jpg", "a.jpg"),
        ("/data/photos", "/data/photos/sub/a.jpg", "sub/a.jpg"),
        (".", "./sub/a.jpg", "sub/a.jpg"),
        ("/", "/sub/a.jpg", "sub/a.jpg"),
        ("../photos", "../photos/a.jpg", "a.jpg"),
        ("photos/a.jpg", "photos/a.jpg", "a.jpg"),
        ("/data/a.jpg", "/data/a.jpg", "a.jpg"),
        ("photos/*/*.jpg", "photos/sub/a.jpg", "sub/a.jpg"),
        ("*.jpg", "a.jpg", "a.jpg"),
        ("photos/20*", "photos/2024/sub/a.jpg", "2024/sub/a.jpg"),
        ("shards/x.tar", "shards/x.tar/a.jpg", "x/a.jpg"),
        ("shards/x.TAR.gz", "shards/x.TAR.gz/sub/a.jpg", "x/sub/a.jpg"),
        ("shards/*.tar", "shards/x.tar/a.jpg", "x/a.jpg"),
        ("s3://bucket/photos", "s3://bucket/photos/sub/a.jpg", "sub/a.jpg"),
        ("s3://bucket/photos/a.jpg", "s3://bucket/photos/a.jpg", "a.jpg"),
        ("s3://bucket/x.tar", "s3://bucket/x.tar/a.jpg", "x/a.jpg"),
    ],
)
def test_the_tree_below_an_input_is_mirrored(given: str, name: str, expected: str) -> None:
    assert place([given], name) == expected


def test_what_a_list_names_is_mirrored_as_it_is_named() -> None:
    assert place([], "/data/a/../b.jpg") == "data/a/b.jpg"
    assert place([], "s3://bucket/a.jpg") == "bucket/a.jpg"
    assert place(["-"], "a/b.jpg") == "a/b.jpg"


def test_the_longest_input_counts() -> None:
    assert place(["photos", "photos/sub"], "photos/sub/a.jpg") == "a.jpg"
    assert place(["photos/sub", "photos"], "photos/other/a.jpg") == "other/a.jpg"


@given(st.text(st.sampled_from("ab./\0 "), min_size=1))
def test_nothing_lies_outside(name: str) -> None:
    folder = Path("/to/here")
    try:
        found = Places(["a"], folder).of(member(name))
    except OutputError:
        return
    assert found.is_relative_to(folder)
    assert found != folder
    assert not {"..", ""}.intersection(found.parts)
    assert "\0" not in str(found)


def test_a_picture_without_a_path_needs_a_folder() -> None:
    with pytest.raises(OutputError, match="name a folder with --output"):
        Places(["x.tar"]).of(member("x.tar/a.jpg"))


def texts(tmp_path: Path, *names: str) -> list[str]:
    files = TextFiles(Places([str(tmp_path)]), ["words"])
    found = [files.place(file_picture(str(tmp_path / name))).place for name in names]
    return [path.relative_to(tmp_path).as_posix() for path in found]


def test_the_second_by_a_name_gets_its_ending(tmp_path: Path) -> None:
    names = ["photo.jpg", "photo.png", "sub/photo.png", "photo.old.jpg", "photo"]
    expected = ["photo.txt", "photo.png.txt", "sub/photo.txt", "photo.old.txt"]
    assert texts(tmp_path, *names[:4]) == expected
    with pytest.raises(OutputError, match=r"photo\.txt is the place of .*photo\.jpg already"):
        texts(tmp_path, *names)


def test_a_file_by_two_names_is_one(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    (tmp_path / "sub").mkdir()
    assert texts(tmp_path, "photo.jpg", "sub/../photo.jpg", "photo.jpg") == [
        "photo.txt",
        "sub/../photo.txt",
        "photo.txt",
    ]


def test_two_inputs_with_one_name_are_told(tmp_path: Path) -> None:
    files = TextFiles(Places(["a", "b"], tmp_path), ["words"])
    files.place(member("a/photo.jpg"))
    with pytest.raises(OutputError, match=r"photo\.jpg is the place of a/photo\.jpg already"):
        files.place(member("b/photo.jpg"))
    assert files.place(member("b/photo.png")).place.name == "photo.png.txt"


def test_each_picture_of_a_run_has_a_place(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "b.jpg", "sub/a.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = TextFiles(Places([str(tmp_path)], tmp_path / "out"), ["words"])
    found = [files.place(one).place for one in find([str(tmp_path)], recursive=True)]
    assert [path.relative_to(tmp_path / "out").as_posix() for path in found] == [
        "a.txt",
        "a.png.txt",
        "b.txt",
        "sub/a.txt",
    ]
