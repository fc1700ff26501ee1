"""One collection for several runs."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from running import write_pictures

from captioner.batch.dealing import Collection, Share
from captioner.batch.pictures import Picture
from captioner.errors import ImageError, OptionError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own(collection: Collection) -> list[str]:
    return [picture.name for picture in collection.pictures() if isinstance(picture, Picture)]


def shares(of: int, *inputs: str, recursive: bool = False) -> list[list[str]]:
    collections = [Collection(inputs, recursive=recursive, share=Share(number, of)) for number in range(of)]
    found = [own(collection) for collection in collections]
    assert [collection.count() for collection in collections] == [*map(len, found)]
    return found


def pack(name: str, folder: Path) -> None:
    with tarfile.open(name, "w") as archive:
        archive.add(folder, arcname=".")


def test_shares_are_read_as_they_are_written() -> None:
    assert Share.parse("3/10") == Share(3, 10)
    assert str(Share(3, 10)) == "00003-of-00010"


@pytest.mark.parametrize("text", ["", "3", "3/", "/10", "-1/10", "1/10/2", "a/b", "1.0/2", "3/0", "10/10", "1 / 2"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--shard"):
        Share.parse(text)


def test_who_counts_from_one_is_told() -> None:
    with pytest.raises(OptionError, match=r"counted from 0, the last one is 9/10"):
        Share.parse("10/10")


def test_pictures_are_dealt_out_one_by_one(here: Path) -> None:
    write_pictures(here / "photos", 7)
    write_pictures(here / "photos" / "sub", 2)
    whole = own(Collection(["photos"], recursive=True))
    found = shares(3, "photos", recursive=True)
    assert found == [whole[0::3], whole[1::3], whole[2::3]]


def test_an_archive_stays_whole(here: Path) -> None:
    for name, count in (("a", 3), ("b", 1), ("c", 2)):
        write_pictures(here / name, count)
        pack(f"{name}.tar", here / name)
    for inputs in (["*.tar"], ["a.tar", "b.tar", "c.tar"], [str(here / "?.tar")]):
        found = shares(2, *inputs)
        assert [[name.rpartition("/")[0][-5:] for name in names] for names in found] == [
            ["a.tar"] * 3 + ["c.tar"] * 2,
            ["b.tar"],
        ]
    assert shares(2, "a", "b.tar", "c")[1] == ["a/001.jpg", "b.tar/000.jpg", "c/001.jpg"]


def test_only_the_own_archives_are_opened(here: Path) -> None:
    write_pictures(here / "a", 1)
    pack("a.tar", here / "a")
    (here / "b.tar").write_bytes(b"no archive")
    first, second = (Collection(["a.tar", "b.tar"], share=Share(number, 2)) for number in range(2))
    assert own(first) == ["a.tar/000.jpg"]
    (broken,) = second.pictures()
    assert isinstance(broken, Picture)
    with pytest.raises(ImageError, match=r"the archive b\.tar is damaged"):
        broken.read()


def test_a_missing_archive_is_missed(here: Path) -> None:
    (found,) = Collection(["gone.tar"], share=Share(0, 2)).pictures()
    assert isinstance(found, Picture)
    with pytest.raises(ImageError) as caught:
        found.read()
    assert caught.value.code == "image_not_found"
    assert list(Collection(["gone.tar"], share=Share(1, 2)).pictures()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_list_in_a_pipe_is_not_read_to_be_counted(here: Path) -> None:
    os.mkfifo("list")
    assert Collection(["x.jpg"], ["list"]).count() is None


def test_a_folder_that_does_not_exist_is_told_at_once() -> None:
    with pytest.raises(OptionError, match="there is no file or folder"):
        Collection(["nowhere"], share=Share(0, 2)).pictures()
