"""Archives: every picture in them with its bytes, in their order, and the truth about damaged ones."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.batch import shards
from captioner.batch.pictures import MAX_BYTES, Failure, Picture
from captioner.batch.shards import LARGEST_HEADER, file_members, members
from captioner.batch.sources import find
from captioner.errors import ImageError

BLOCK = 512
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
needs_odd_names = pytest.mark.skipif(sys.platform != "linux", reason="here names are Unicode")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pack(contents: dict[str, bytes], format_: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive that ends right after its mark of the end, without the filling up to a tape's record."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()[: archive.offset]


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, link
    return member.tobuf(tarfile.GNU_FORMAT)


def pictures(data: bytes, way: str = "file") -> list[Picture]:
    """What is found of an archive on this machine, of a compressed one, or of one that comes from elsewhere."""
    if way == "stream":
        return list(members("s.tar", lambda: io.BufferedReader(io.BytesIO(data))))
    path = Path("s.tar" if way == "file" else "s.tar.gz")
    path.write_bytes(data if way == "file" else gzip.compress(data, mtime=0))
    return list(file_members(str(path)))


def opened() -> io.BufferedReader:
    return Path("s.tar").open("rb")


def told(found: list[Picture]) -> dict[str, bytes | str]:
    """The name of each picture with its bytes, or the code of its error."""
    result: dict[str, bytes | str] = {}
    for picture in found:
        assert picture.name not in result
        assert picture.path is None
        try:
            result[picture.name] = picture.read()
        except ImageError as error:
            result[picture.name] = error.code
    return result


WAYS = ["file", "gz", "stream"]
NAMES = {"file": "s.tar", "gz": "s.tar.gz", "stream": "s.tar"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("format_", FORMATS)
def test_pictures_come_in_the_order_of_the_archive(format_: str, way: str) -> None:
    long = "f" * 90 + "/" + "n" * 90 + ".jpg"
    contents = {"b.jpg": b"bytes of b", "a.png": b"a" * 2000, long: b"long", "empty.jpg": b"", "x/y/z.webp": b"z"}
    found = pictures(pack(contents, FORMATS[format_]), way)
    assert told(found) == {f"{NAMES[way]}/{name}": data for name, data in contents.items()}
    assert [picture.name.partition("/")[2] for picture in found] == list(contents)
    assert [picture.read() for picture in found] == list(contents.values())  # again


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".TAR", ".Tgz"])
def test_an_input_is_an_archive_by_its_name(suffix: str) -> None:
    data = pack({"a.jpg": b"a", "b.jpg": b"b"})
    Path(f"s{suffix}").write_bytes(data if suffix.lower() == ".tar" else gzip.compress(data))
    assert told(list(find([f"./s{suffix}"]))) == {f"./s{suffix}/a.jpg": b"a", f"./s{suffix}/b.jpg": b"b"}


def test_what_an_archive_is_packed_with_shows_in_its_bytes() -> None:
    Path("s.tar").write_bytes(gzip.compress(pack({"a.jpg": b"a"})))
    assert told(list(find(["s.tar"]))) == {"s.tar/a.jpg": b"a"}
    Path("s.tgz").write_bytes(pack({"a.jpg": b"a"}))
    assert told(list(find(["s.tgz"]))) == {"s.tgz/a.jpg": b"a"}


def test_a_folder_of_that_name_is_a_folder() -> None:
    Path("s.tar").mkdir()
    Path("s.tar/a.jpg").write_bytes(b"a")
    (picture,) = find(["s.tar"])
    assert picture.path == Path("s.tar/a.jpg")


def test_of_a_shard_the_pictures_are_taken_and_nothing_else() -> None:
    shard = {"000.jpg": b"0", "000.json": b"{}", "000.txt": b"a dog", "001.jpg": b"1", "001.cls": b"3", "jpg": b"?"}
    assert told(pictures(pack(shard))) == {"s.tar/000.jpg": b"0", "s.tar/001.jpg": b"1"}


def test_what_is_hidden_is_passed_over() -> None:
    hidden = ["._a.jpg", ".a.jpg", ".git/a.jpg", "__MACOSX/a.jpg", "x/._a.jpg", "x/@eaDir/a.jpg", "x/.y/z/a.jpg"]
    assert told(pictures(pack({**dict.fromkeys(hidden, b"no"), "x/a.jpg": b"yes"}))) == {"s.tar/x/a.jpg": b"yes"}


def test_names_do_not_lead_out_of_the_archive() -> None:
    contents = {"./a.jpg": b"a", "/b.jpg": b"b", "../../c.jpg": b"c", "x/../d.jpg": b"d", "x//e.jpg": b"e"}
    assert list(told(pictures(pack(contents)))) == [
        "s.tar/a.jpg", "s.tar/b.jpg", "s.tar/c.jpg", "s.tar/x/d.jpg", "s.tar/x/e.jpg",
    ]  # fmt: skip


@needs_odd_names
@pytest.mark.parametrize("format_", FORMATS)
def test_names_that_are_not_unicode_survive(format_: str) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    assert told(pictures(pack({name: b"a"}, FORMATS[format_]))) == {f"s.tar/{name}": b"a"}


def test_what_is_no_file_is_passed_over_and_a_link_is_told() -> None:
    data = b"".join(
        [
            header("folder.jpg", kind=tarfile.DIRTYPE),
            header("pipe.jpg", kind=tarfile.FIFOTYPE),
            header("a.jpg", 1) + b"a".ljust(BLOCK, b"\0"),
            header("soft.jpg", kind=tarfile.SYMTYPE, link="a.jpg"),
            header("hard.jpg", kind=tarfile.LNKTYPE, link="a.jpg"),
            header("link.txt", kind=tarfile.SYMTYPE, link="a.txt"),
            bytes(2 * BLOCK),
        ]
    )
    for way in ("file", "stream"):
        found = pictures(data, way)
        assert told(found) == {
            "s.tar/a.jpg": b"a", "s.tar/soft.jpg": "image_unreadable", "s.tar/hard.jpg": "image_unreadable",
        }  # fmt: skip
        with pytest.raises(ImageError, match=r"is a link to a\.jpg"):
            found[1].read()


def test_of_two_members_by_one_name_the_first_is_taken() -> None:
    first, second = (header("a.jpg", 1) + data.ljust(BLOCK, b"\0") for data in (b"1", b"2"))
    Path("s.tar").write_bytes(first + second + bytes(2 * BLOCK))
    assert told(list(find(["s.tar"]))) == {"s.tar/a.jpg": b"1"}


# Memory


@pytest.mark.parametrize("way", WAYS)
def test_a_member_with_too_many_bytes_is_not_read(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_BYTES", 3_000_000)
    data = pack({"large.jpg": bytes(3_000_001), "most.jpg": bytes(3_000_000), "a.jpg": b"a"})
    found = pictures(data, way)
    assert [picture.name for picture in found] == [
        f"{NAMES[way]}/{name}" for name in ("large.jpg", "most.jpg", "a.jpg")
    ]
    large, most, last = found
    with pytest.raises(ImageError, match="is too large") as caught:
        large.read()
    assert caught.value.code == "image_too_large"
    assert len(most.read()) == 3_000_000
    assert last.read() == b"a"


def test_what_is_not_read_takes_no_memory() -> None:
    with Path("s.tar").open("wb") as file:
        file.write(header("large.jpg", MAX_BYTES + 1))
        file.seek(MAX_BYTES + BLOCK, os.SEEK_CUR)  # takes no room
        file.write(header("a.jpg", 1) + b"a".ljust(BLOCK, b"\0") + bytes(2 * BLOCK))
    tracemalloc.start()
    assert told(list(file_members("s.tar"))) == {"s.tar/large.jpg": "image_too_large", "s.tar/a.jpg": b"a"}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("way", WAYS)
def test_memory_is_that_of_one_member(way: str) -> None:
    data = pack({f"{number}.jpg": bytes([number]) * 1_000_000 for number in range(20)})
    Path("s.tar").write_bytes(gzip.compress(data, 1) if way == "gz" else data)
    del data
    found = file_members("s.tar") if way != "stream" else members("s.tar", opened)
    tracemalloc.start()
    assert sum(len(picture.read()) for picture in found) == 20_000_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_headers_that_were_passed_are_not_kept() -> None:
    block = b"".join(header(f"{number}.jpg") for number in range(5_000))
    Path("s.tar").write_bytes(block + bytes(2 * BLOCK))
    tracemalloc.start()
    assert sum(1 for _ in file_members("s.tar")) == 5_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000 * 100  # a header takes over 1,000 bytes


def test_the_file_is_closed_when_nobody_wants_more() -> None:
    Path("s.tar").write_bytes(pack({"a.jpg": b"a", "b.jpg": b"b"}))
    files: list[io.BufferedReader] = []

    def open_() -> io.BufferedReader:
        files.append(opened())
        return files[0]

    found = members("s.tar", open_)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert files[0].closed


# Damage


def only_failure(found: list[Picture]) -> ImageError:
    (failure,) = [picture for picture in found if isinstance(picture.read, Failure)]
    assert failure is found[-1]
    with pytest.raises(ImageError) as caught:
        failure.read()
    return caught.value


@pytest.mark.parametrize("way", ["file", "stream"])
def test_an_archive_cut_anywhere_gives_what_is_whole_and_then_says_so(way: str) -> None:
    contents = {"a.jpg": b"a" * 600, "b.txt": b"b", f"{'n' * 80}/{'n' * 80}.jpg": b"c" * 5, "d.jpg": b"d" * BLOCK}
    for format_ in FORMATS.values():
        data = pack(contents, format_)
        wanted = [(f"s.tar/{name}", content) for name, content in contents.items() if name != "b.txt"]
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            ends = [member.offset_data + member.size for member in archive if member.name != "b.txt"]
        end = len(data) - 2 * BLOCK
        near = [edge + by for edge in (*ends, *range(0, end + 1, BLOCK)) for by in (-1, 0, 1, 100)]
        for cut in sorted({cut for cut in near if 0 <= cut <= end}):
            found = pictures(data[:cut], way)
            error = only_failure(found)
            assert found[-1].name == "s.tar"
            assert error.code == "image_broken"
            assert "s.tar is damaged or incomplete" in str(error)
            whole = [(picture.name, picture.read()) for picture in found[:-1]]
            assert whole == wanted[: sum(end <= cut for end in ends)]
        for cut in (len(data) - BLOCK, len(data)):  # one block of zeros is enough
            assert list(told(pictures(data[:cut], way)).items()) == wanted


def test_a_compressed_archive_cut_anywhere_says_so() -> None:
    contents = {f"{number}.jpg": os.urandom(300) for number in range(4)}
    packed = gzip.compress(pack(contents))
    for cut in range(2, len(packed), 7):
        Path("s.tar.gz").write_bytes(packed[:cut])
        found = list(file_members("s.tar.gz"))
        only_failure(found)
        assert found[-1].name == "s.tar.gz"
        for picture in found[:-1]:
            assert picture.read() == contents[picture.name.partition("/")[2]]


def test_a_wrong_checksum_of_a_compressed_archive_is_told() -> None:
    packed = bytearray(gzip.compress(pack({"a.jpg": os.urandom(100_000)})))
    packed[-8] ^= 1
    Path("s.tar.gz").write_bytes(packed)
    found = list(file_members("s.tar.gz"))
    assert [picture.name for picture in found] == ["s.tar.gz/a.jpg", "s.tar.gz"]
    assert "CRC" in str(only_failure(found))


def test_damage_in_the_middle_is_not_the_end() -> None:
    data = bytearray(pack({"a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c"}, tarfile.USTAR_FORMAT))
    data[2 * BLOCK + 3] ^= 1  # in the name of the second
    for way in WAYS:
        found = pictures(bytes(data), way)
        assert [picture.name for picture in found] == [f"{NAMES[way]}/a.jpg", NAMES[way]]
        only_failure(found)


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"\xff\xd8\xff" + bytes(range(256)) * 9, b"\x1f\x8b", gzip.compress(b""), gzip.compress(b"x" * 3000)],
    ids=["nothing", "a letter", "a picture", "cut", "packed nothing", "packed letters"],
)
def test_what_is_no_archive_says_so(data: bytes) -> None:
    Path("s.tar").write_bytes(data)
    (found,) = find(["s.tar"])
    assert found.name == "s.tar"
    only_failure([found])


def test_an_empty_archive_is_empty() -> None:
    for way in WAYS:
        assert pictures(bytes(2 * BLOCK), way) == []


def endless_notes() -> bytes:
    """Headers that each announce another: deeper than Python calls."""
    return (header("x", 10, tarfile.XHDTYPE) + b"10 a=bcde\n".ljust(BLOCK, b"\0")) * 2000


def backwards() -> bytes:
    """A size below nothing, in a note where no checksum sees it."""
    note = b"17 size=-1000000\n"
    return header("x", len(note), tarfile.XHDTYPE) + note.ljust(BLOCK, b"\0") + header("a.jpg", 1) + bytes(3 * BLOCK)


def large_note() -> bytes:
    name = (b"n" * LARGEST_HEADER + b".jpg\0").ljust(LARGEST_HEADER + BLOCK, b"\0")
    return header("x", len(name), tarfile.GNUTYPE_LONGNAME) + name + header("a.jpg") + bytes(2 * BLOCK)


def below_nothing() -> bytes:
    block = bytearray(header("a.jpg"))
    block[124:136] = b"\xff" * 12
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(2 * BLOCK)


@pytest.mark.parametrize("make", [endless_notes, backwards, large_note, below_nothing])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_made_to_hurt_does_not(make: Callable[[], bytes], way: str) -> None:
    found = pictures(make(), way)
    assert [picture.name for picture in found] == [NAMES[way]]
    assert only_failure(found).code == "image_broken"


def test_an_archive_that_changes_later_does_not_give_other_bytes() -> None:
    Path("s.tar").write_bytes(pack({"a.jpg": b"a" * 1000}))
    (picture,) = file_members("s.tar")
    os.truncate("s.tar", 700)
    with pytest.raises(ImageError, match="was changed"):
        picture.read()
    Path("s.tar").unlink()
    with pytest.raises(ImageError, match="does not exist"):
        picture.read()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="nothing is here that opens but does not read")
def test_what_opens_but_does_not_read_says_so() -> None:
    Path("s.tar").write_bytes(pack({"a.jpg": b"a"}))
    (picture,) = file_members("s.tar")
    Path("s.tar").unlink()
    Path("s.tar").symlink_to("/proc/self/mem")
    with pytest.raises(ImageError, match=r"s\.tar/a\.jpg cannot be read: Input/output error"):
        picture.read()
    (archive,) = file_members("s.tar")
    with pytest.raises(ImageError, match=r"the archive s\.tar cannot be read: Input/output error") as caught:
        archive.read()
    assert caught.value.code == "image_unreadable"


def test_a_sparse_file_is_whole() -> None:
    if os.system("command -v tar > /dev/null && tar --version | grep -q GNU"):
        pytest.skip("GNU tar, which writes such members, is not here")
    with Path("a.jpg").open("wb") as file:
        file.seek(300_000)
        file.write(b"end")
    for format_ in ("gnu", "pax"):
        assert os.system(f"tar --sparse --format={format_} -cf s.tar a.jpg") == 0
        assert Path("s.tar").stat().st_size < 100_000
        for way in ("file", "stream"):
            assert told(pictures(Path("s.tar").read_bytes(), way)) == {"s.tar/a.jpg": bytes(300_000) + b"end"}


MEMBERS = st.dictionaries(
    st.text("ab/.", min_size=1, max_size=8).map(lambda name: f"x{name}.jpg"), st.binary(max_size=700)
)


@given(MEMBERS, st.sampled_from(sorted(FORMATS)), st.data())
def test_whatever_bytes_are_wrong_nothing_breaks(contents: dict[str, bytes], format_: str, data: st.DataObject) -> None:
    archive = bytearray(pack(contents, FORMATS[format_]))
    for position in data.draw(st.lists(st.integers(0, len(archive) - 1), max_size=5)):
        archive[position] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s.tar")
        for packed in (bytes(archive), gzip.compress(archive)):
            path.write_bytes(packed)
            here = [told_or_failed(picture) for picture in file_members(str(path))]
        streamed = [
            told_or_failed(picture)
            for picture in members(str(path), lambda: io.BufferedReader(io.BytesIO(bytes(archive))))
        ]
        assert here == streamed


def told_or_failed(picture: Picture) -> tuple[str, bytes | str]:
    try:
        return picture.name, picture.read()
    except ImageError as error:
        return picture.name, error.code
