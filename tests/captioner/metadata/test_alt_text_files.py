"""Files on disk: sidecars, embedding, reading; and whatever goes wrong, what was there is there still."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import picture_files as files
import pyexiv2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from captioner import metadata
from captioner.errors import CaptionerError, ImageError, OptionError
from captioner.metadata import replacing

TEXT = 'Ein Hund & <zwei> "Katzen" — 狗 🐕'
OTHER = "a cat"


@pytest.fixture(params=files.PICTURES)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = files.write(tmp_path / request.param, files.PICTURES[request.param])
    os.utime(path, ns=(files.SEEN, files.DATE))
    return path


# Sidecars


def test_a_sidecar_is_named_after_the_whole_name() -> None:
    assert metadata.sidecar_of(Path("a/photo.jpg")) == Path("a/photo.jpg.xmp")
    assert metadata.sidecar_of(Path("photo")) == Path("photo.xmp")


def test_a_sidecar_holds_the_text_and_the_picture_is_not_touched(image: Path) -> None:
    before = image.stat()
    metadata.write_sidecar(image, TEXT)
    sidecar = metadata.sidecar_of(image)
    assert files.names(image.parent) == sorted([image.name, sidecar.name])
    assert metadata.read(image) == metadata.read_sidecar(image) == files.exiv2_alt_text_of(sidecar) == TEXT
    assert metadata.read_embedded(image) is None
    assert image.read_bytes() == files.PICTURES[image.name]
    assert (image.stat().st_mtime_ns, image.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_the_picture_of_a_sidecar_need_not_be_there(tmp_path: Path) -> None:
    metadata.write_sidecar(tmp_path / "elsewhere.jpg", TEXT)
    assert metadata.read_sidecar(tmp_path / "elsewhere.jpg") == TEXT


def test_what_another_program_wrote_into_a_sidecar_stays(photo: Path) -> None:
    sidecar = files.write(metadata.sidecar_of(photo), files.packet(0))
    with pyexiv2.Image(str(sidecar)) as image:
        image.modify_xmp({"Xmp.dc.creator": ["Jürgen"], "Xmp.xmp.Label": "Blue"})
        before = image.read_xmp()
    metadata.write_sidecar(photo, TEXT)
    with pyexiv2.Image(str(sidecar)) as image:
        after = image.read_xmp()
    assert after.pop("Xmp.iptc.AltTextAccessibility") == after.pop("Xmp.dc.description") == {'lang="x-default"': TEXT}
    assert after == before
    assert after["Xmp.dc.creator"] == ["Jürgen"]


def test_a_description_in_a_sidecar_stays_unless_told_otherwise(photo: Path) -> None:
    description = '<dc:description xmlns:dc="http://purl.org/dc/elements/1.1/">mine</dc:description></rdf:Description>'
    old = files.packet().replace(b"</rdf:Description>", description.encode(), 1)
    sidecar = files.write(metadata.sidecar_of(photo), old)
    metadata.write_sidecar(photo, TEXT)
    assert b">mine<" in sidecar.read_bytes()
    metadata.write_sidecar(photo, TEXT, keep_description=False)
    assert b">mine<" not in sidecar.read_bytes()
    assert files.exiv2_default(sidecar.read_bytes(), files.DESCRIPTION) == TEXT


def test_a_new_sidecar_has_the_usual_permissions(photo: Path) -> None:
    before = os.umask(0o027)
    try:
        metadata.write_sidecar(photo, TEXT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(metadata.sidecar_of(photo).stat().st_mode) == 0o640


def test_a_changed_sidecar_keeps_its_mode_and_gets_a_new_date(photo: Path) -> None:
    sidecar = files.write(metadata.sidecar_of(photo), files.packet())
    sidecar.chmod(0o604)
    os.utime(sidecar, ns=(files.SEEN, files.DATE))
    metadata.write_sidecar(photo, TEXT)
    assert stat.S_IMODE(sidecar.stat().st_mode) == 0o604
    assert sidecar.stat().st_mtime_ns > files.DATE, "programs that watch it read it again"


def test_the_same_sidecar_again_is_not_written_again(photo: Path) -> None:
    metadata.write_sidecar(photo, TEXT)
    before = metadata.sidecar_of(photo).stat()
    metadata.write_sidecar(photo, TEXT)
    assert metadata.sidecar_of(photo).stat().st_ino == before.st_ino


def test_a_sidecar_that_is_a_link_stays_one(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = files.write(tmp_path / "elsewhere" / "notes.xmp", files.packet())
    metadata.sidecar_of(photo).symlink_to(target)
    metadata.write_sidecar(photo, TEXT)
    assert metadata.sidecar_of(photo).is_symlink()
    assert files.exiv2_alt_text_of(target) == TEXT
    assert files.names(target.parent) == ["notes.xmp"]


def test_whatever_file_is_replaced_through_a_link(photo: Path) -> None:
    link = photo.parent / "link.jpg"
    link.symlink_to(photo.name)
    replacing.replace(link, b"new", replacing.state(link))
    assert link.is_symlink()
    assert photo.read_bytes() == b"new"


def test_the_sidecar_goes_before_what_is_embedded(photo: Path) -> None:
    metadata.embed(photo, TEXT)
    assert metadata.read(photo) == TEXT
    metadata.write_sidecar(photo, OTHER)
    assert metadata.read(photo) == OTHER
    assert metadata.read_embedded(photo) == TEXT
    metadata.sidecar_of(photo).write_bytes(files.packet())
    assert metadata.read(photo) == TEXT


def test_a_broken_sidecar_is_told_and_stays(photo: Path) -> None:
    sidecar = files.write(metadata.sidecar_of(photo), b"<broken")
    for access in (metadata.read, metadata.read_sidecar, lambda path: metadata.write_sidecar(path, TEXT)):
        with pytest.raises(ImageError, match=r"photo\.jpg\.xmp cannot be read: .*; repair or remove"):
            access(photo)
    assert sidecar.read_bytes() == b"<broken"


def test_a_sidecar_of_unreasonable_size_is_refused(photo: Path) -> None:
    with metadata.sidecar_of(photo).open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(ImageError, match=r"photo\.jpg\.xmp is larger than 67,108,864 bytes"):
        metadata.write_sidecar(photo, TEXT)


# Embedding


def test_the_embedded_text_is_read_by_others_and_the_picture_is_the_same(image: Path) -> None:
    metadata.embed(image, TEXT)
    assert files.names(image.parent) == [image.name]
    assert metadata.read(image) == metadata.read_embedded(image) == files.exiv2_alt_text_of(image) == TEXT
    assert metadata.read_sidecar(image) is None
    assert files.frames(image.read_bytes()) == files.frames(files.PICTURES[image.name])


def test_a_file_keeps_its_dates_and_its_mode(image: Path) -> None:
    image.chmod(0o640)
    for text in (TEXT, OTHER, "long " * 1000):
        os.utime(image, ns=(files.SEEN, files.DATE))
        metadata.embed(image, text)
        found = image.stat()
        assert (found.st_atime_ns, found.st_mtime_ns, stat.S_IMODE(found.st_mode)) == (files.SEEN, files.DATE, 0o640)


def test_a_file_keeps_its_extended_attributes(photo: Path) -> None:
    try:
        os.setxattr(photo, "user.colour", b"red")
    except OSError as error:
        pytest.skip(f"this file system has none: {error}")
    metadata.embed(photo, TEXT)
    assert os.getxattr(photo, "user.colour") == b"red"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(photo: Path) -> None:
    os.chown(photo, 1234, 2345)
    metadata.embed(photo, TEXT)
    assert (photo.stat().st_uid, photo.stat().st_gid) == (1234, 2345)
    assert photo.stat().st_mtime_ns == files.DATE


def test_the_same_text_again_leaves_the_file_alone(image: Path) -> None:
    metadata.embed(image, TEXT)
    before = image.stat()
    metadata.embed(image, TEXT)
    assert image.stat().st_ino == before.st_ino
    assert image.stat().st_ctime_ns == before.st_ctime_ns


def test_a_description_in_a_file_stays_unless_told_otherwise(photo: Path) -> None:
    with pyexiv2.Image(str(photo)) as image:
        image.modify_xmp({"Xmp.dc.description": "mine"})
    metadata.embed(photo, TEXT)
    assert files.exiv2_default(photo.read_bytes(), files.DESCRIPTION) == "mine"
    metadata.embed(photo, TEXT, keep_description=False)
    assert files.exiv2_default(photo.read_bytes(), files.DESCRIPTION) == TEXT


def test_a_link_is_followed_and_stays(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "second.jpg").symlink_to(Path("..") / "photo.jpg")
    (folder / "first.jpg").symlink_to("second.jpg")
    metadata.embed(folder / "first.jpg", TEXT)
    assert (folder / "first.jpg").readlink() == Path("second.jpg")
    assert (folder / "second.jpg").readlink() == Path("../photo.jpg")
    assert files.exiv2_alt_text_of(photo) == TEXT
    assert files.names(folder) == ["first.jpg", "second.jpg"]
    assert files.names(tmp_path) == ["links", "photo.jpg"]


def test_other_names_of_a_file_keep_the_old_one(photo: Path, tmp_path: Path) -> None:
    os.link(photo, tmp_path / "snapshot.jpg")
    metadata.embed(photo, TEXT)
    assert metadata.read(photo) == TEXT
    assert (tmp_path / "snapshot.jpg").read_bytes() == files.PICTURES["photo.jpg"]


def test_other_formats_are_refused_and_have_no_text(tmp_path: Path) -> None:
    path = files.write(tmp_path / "a.gif", files.encode("GIF"))
    with pytest.raises(ImageError, match=r"a\.gif is not JPEG, PNG or WebP.*sidecar") as caught:
        metadata.embed(path, TEXT)
    assert caught.value.code == "cannot_embed"
    assert metadata.read(path) is None
    metadata.write_sidecar(path, TEXT)
    assert metadata.read(path) == TEXT


def test_a_format_is_told_by_the_bytes_and_not_by_the_name(tmp_path: Path) -> None:
    path = files.write(tmp_path / "drawing.jpg", files.PICTURES["drawing.png"])
    metadata.embed(path, TEXT)
    assert files.exiv2_alt_text_of(path) == TEXT
    assert files.png_chunks(path.read_bytes())


def test_an_empty_text_is_refused(photo: Path) -> None:
    with pytest.raises(OptionError):
        metadata.embed(photo, " ")
    with pytest.raises(OptionError):
        metadata.write_sidecar(photo, "\0")
    assert photo.read_bytes() == files.PICTURES["photo.jpg"]
    assert files.names(photo.parent) == ["photo.jpg"]


def test_reading_reads_no_more_of_a_file_than_it_must(tmp_path: Path) -> None:
    path = files.write(tmp_path / "photo.jpg", files.PICTURES["photo.jpg"])
    metadata.embed(path, TEXT)
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # a terabyte that is not there
    assert metadata.read(path) == TEXT
    with pytest.raises(ImageError, match="larger than 1,073,741,824 bytes") as caught:
        metadata.embed(path, OTHER)
    assert caught.value.code == "image_too_large"


# What is not there, or no file


@pytest.mark.parametrize("name", ["missing.jpg", "photo.jpg/inside.jpg", "a\0b.jpg", "loop", "x" * 300])
def test_a_missing_file_is_told(photo: Path, name: str) -> None:
    (photo.parent / "loop").symlink_to("loop")
    for access in (metadata.read, metadata.read_embedded, lambda path: metadata.embed(path, TEXT)):
        with pytest.raises(ImageError, match=r"does not exist|cannot be read") as caught:
            access(photo.parent / name)
        assert caught.value.code in ("image_not_found", "image_unreadable")


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path, tmp_path / "pipe.jpg"):
        for access in (metadata.read, metadata.read_embedded, lambda path: metadata.embed(path, TEXT)):
            with pytest.raises(ImageError, match="is not a file"):
                access(path)
    (tmp_path / "photo.jpg.xmp").mkdir()
    with pytest.raises(ImageError, match=r"photo\.jpg\.xmp is not a file"):
        metadata.write_sidecar(tmp_path / "photo.jpg", TEXT)
    for path in (Path(), Path("/")):
        with pytest.raises(ImageError):
            metadata.write_sidecar(path, TEXT)


# Whatever the bytes


ANYTHING = st.binary(max_size=300)
STARTS = st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBPVP8 "])
HURT = st.builds(
    lambda data, at, new, cut: (data[: at % len(data)] + new + data[at % len(data) + len(new) :])[: len(data) - cut],
    st.sampled_from(list(files.PICTURES.values())),
    st.integers(0, 1 << 20),
    st.binary(min_size=1, max_size=5),
    st.integers(0, 100),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.builds(lambda start, rest: start + rest, STARTS, ANYTHING) | HURT)
@example(data=b"")
def test_a_damaged_file_is_refused_and_unchanged_or_has_the_text(tmp_path: Path, data: bytes) -> None:
    path = files.write(tmp_path / "photo", data)
    os.utime(path, ns=(files.SEEN, files.DATE))
    try:
        metadata.read(path)
        metadata.embed(path, TEXT)
    except CaptionerError:
        assert path.read_bytes() == data
    else:
        assert metadata.read(path) == TEXT
    assert path.stat().st_mtime_ns == files.DATE
    assert files.names(tmp_path) == ["photo"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(), max_size=250))
def test_any_text_goes_through_a_file(tmp_path: Path, text: str) -> None:
    path = files.write(tmp_path / "photo.jpg", files.PICTURES["photo.jpg"])
    try:
        metadata.embed(path, text)
    except OptionError:
        assert path.read_bytes() == files.PICTURES["photo.jpg"]
    else:
        assert metadata.read(path) == files.exiv2_alt_text_of(path)
