"""Collections in parts and groups, and what becomes of a group when it is read."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from captioner.batch.cluster.parts import Group, Part, Source, parts, sources
from captioner.batch.cluster.reading import Filled, fill
from captioner.batch.dealing import Collection, Share
from captioner.batch.pictures import Failure
from captioner.errors import ImageError, OptionError

HINT = "all machines of the cluster see it there"


def pictures(*names: str) -> tuple[Source, ...]:
    return tuple(Source(name, f"/{name}") for name in names)


def archive(name: str) -> Source:
    return Source(name, f"/{name}", archive=True)


def test_parts_are_of_one_size_and_archives_by_themselves() -> None:
    found = parts(iter([*pictures(*"abc"), archive("t"), archive("u"), *pictures(*"de")]), 2)
    named = [(part.number, "".join(source.name for source in part.sources)) for part in found]
    assert named == [(0, "ab"), (1, "c"), (2, "t"), (3, "u"), (4, "de")]


def test_groups_follow_on_one_another() -> None:
    first, second, third = Part(7, pictures(*"abcde")).groups(2)
    assert [(group.part, group.start, group.end, group.last) for group in (first, second, third)] == [
        (7, 0, 2, False),
        (7, 2, 4, False),
        (7, 4, 5, True),
    ]
    (only,) = Part(0, (archive("t"),)).groups(2)
    assert (only.end, only.last) == (None, True)


def test_a_digest_tells_other_names_another_order_and_an_archive() -> None:
    several = [
        pictures("a", "b"),
        pictures("b", "a"),
        pictures("a"),
        pictures("ab"),
        (archive("a"),),
        pictures("a\udcff"),
    ]
    assert len({Part(0, some).digest for some in several}) == len(several)
    assert Part(0, pictures("a")).digest == Part(3, (Source("a", "/elsewhere/a"),)).digest


def test_archives_are_dealt_out_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.tar"):
        Path(name).write_bytes(b"whatever")
    Path("list").write_text("b.tar\nno/c.jpg\nhttps://h/d.tar?x=1\nhttps://h/e.jpg\nno/folder\n", encoding="utf-8")
    found = list(sources(Collection(["a.jpg"], ["list"])))
    assert [(source.name, source.place, source.archive) for source in found] == [
        ("a.jpg", f"{tmp_path}/a.jpg", False),
        ("b.tar", f"{tmp_path}/b.tar", True),
        ("no/c.jpg", f"{tmp_path}/no/c.jpg", False),
        ("https://h/d.tar?x=1", "https://h/d.tar?x=1", True),
        ("https://h/e.jpg", "https://h/e.jpg", False),
        ("no/folder", "no/folder", False),
    ]
    assert [source.failure is None for source in found] == [True] * 5 + [False]


def test_a_cluster_is_not_given_a_share() -> None:
    with pytest.raises(OptionError, match="leave --shard out"):
        sources(Collection(["."], share=Share(0, 2)))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files of 10 bytes."""
    for name in "abcdef":
        (tmp_path / f"{name}.jpg").write_bytes(name.encode() * 10)
    return tmp_path


def group(folder: Path, names: str, *, last: bool = True) -> Group:
    return Group(5, 16, tuple(Source(f"{name}.jpg", f"{folder}/{name}.jpg") for name in names), last)


def shown(filled: Filled) -> tuple[int, int, str, bool]:
    contents = [content[:1].decode() if isinstance(content, bytes) else "!" for content in filled.contents]
    return filled.part, filled.start, "".join(contents), filled.last


def test_pictures_are_read_in_their_order(files: Path) -> None:
    (filled,) = fill(group(files, "abcdef", last=False), 8)
    assert shown(filled) == (5, 16, "abcdef", False)
    assert [picture.name for picture in filled.pictures()] == [f"{name}.jpg" for name in "abcdef"]
    assert next(filled.pictures()).read() == b"a" * 10


def test_large_pictures_travel_in_several_loads(files: Path) -> None:
    filled = [shown(one) for one in fill(group(files, "abcde"), 8, most=20)]
    assert filled == [(5, 16, "ab", False), (5, 18, "cd", False), (5, 20, "e", True)]


def test_what_cannot_be_read_keeps_its_place_and_its_reason(files: Path) -> None:
    (filled,) = fill(group(files, "axb"), 8)
    assert shown(filled) == (5, 16, "a!b", True)
    _, missing, _ = filled.pictures()
    with pytest.raises(ImageError, match=HINT) as caught:
        missing.read()
    assert caught.value.code == "image_not_found"
    unreachable = Source("far", "far", failure=Failure("the folder far cannot be read", "image_unreadable"))
    (filled,) = fill(Group(0, 0, (unreachable,), last=True), 8)
    assert filled.contents == (unreachable.failure,)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_is_read_as_a_stream_by_its_name(files: Path, mode: str) -> None:
    path = files / ("shard.tar" if mode == "w" else "shard.tgz")
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name in "abcde":
            tar.add(files / f"{name}.jpg", arcname=f"in/{name}.jpg")
    filled = list(fill(Group(3, 0, (Source("given", str(path), archive=True),), last=True), 2))
    assert [shown(one) for one in filled] == [(3, 0, "ab", False), (3, 2, "cd", False), (3, 4, "e", True)]
    assert filled[0].names == ("given/in/a.jpg", "given/in/b.jpg")


def test_an_archive_without_pictures_ends_its_part(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    (filled,) = fill(Group(3, 0, (Source("e", str(tmp_path / "empty.tar"), archive=True),), last=True), 2)
    assert (filled.names, filled.last) == ((), True)


def test_an_archive_that_is_missing_is_a_picture_that_failed(tmp_path: Path) -> None:
    (filled,) = fill(Group(3, 0, (Source("no.tar", str(tmp_path / "no.tar"), archive=True),), last=True), 2)
    assert filled.names == ("no.tar",)
    (failure,) = filled.contents
    assert isinstance(failure, Failure)
    assert HINT in failure.message


def test_urls_are_read_by_whoever_gets_them(files: Path) -> None:
    pytest.importorskip("fsspec")
    with tarfile.open(files / "shard.tar", "w") as tar:
        tar.add(files / "a.jpg", arcname="a.jpg")
    urls = (Source(f"local://{files}/b.jpg", f"local://{files}/b.jpg"), Source("local:///no.jpg", "local:///no.jpg"))
    (filled,) = fill(Group(0, 0, urls, last=True), 2)
    assert shown(filled) == (0, 0, "b!", True)
    assert HINT not in str(filled.contents[1])
    far = f"local://{files}/shard.tar"
    (filled,) = fill(Group(0, 0, (Source(far, far, archive=True),), last=True), 2)
    assert (filled.names, filled.contents) == ((f"{far}/a.jpg",), (b"a" * 10,))
