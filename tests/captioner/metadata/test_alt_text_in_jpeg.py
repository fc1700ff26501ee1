"""JPEG: the alt text goes into a segment; the picture, what follows it and all other metadata stay byte for byte."""

from __future__ import annotations

import picture_files as files
import pyexiv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import CaptionerError, ImageError
from captioner.metadata import jpeg

TEXT = 'Ein Hund & <zwei> "Katzen" — 狗 🐕'
OTHER = "a cat"
# A video as phones put it behind the photo; it has all the markers of a JPEG file in it.
VIDEO = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 3 + b"\xff\xd8\xff\xd9\xff\xe1\0\4"


def embed(data: bytes, text: str = TEXT, *, keep_description: bool = True) -> bytes:
    return jpeg.embed(data, text, "photo.jpg", keep_description=keep_description)


def rich() -> bytes:
    """A photo with Exif, a colour profile, a comment, IPTC and somebody's XMP."""
    data = files.encode(
        "JPEG", quality=90, exif=files.exif(), icc_profile=files.PROFILE, comment=b"a comment", xmp=files.packet()
    )
    with pyexiv2.ImageData(data) as image:
        image.modify_iptc({"Iptc.Application2.Caption": "an IPTC caption", "Iptc.Application2.City": "Bonn"})
        return image.get_bytes()


RICH = rich()
LARGE_PROFILE = (200_000).to_bytes(4) + files.PROFILE[4:].ljust(199_996, b"\0")
PICTURES = {
    "plain": files.encode("JPEG"),
    "progressive": files.encode("JPEG", progressive=True),
    "grey": files.encode("JPEG", files.pixels().convert("L")),
    "CMYK": files.encode("JPEG", files.pixels().convert("CMYK")),
    "with restarts": files.encode("JPEG", restart_marker_rows=1),
    "with Exif": files.encode("JPEG", exif=files.exif()),
    "with a large profile": files.encode("JPEG", icc_profile=LARGE_PROFILE),
    "rich": RICH,
    "with a video": RICH + VIDEO,
    "without JFIF": b"\xff\xd8" + files.encode("JPEG")[20:],
    "with fill bytes": files.encode("JPEG").replace(b"\xff\xdb", b"\xff\xff\xff\xdb"),
    "with a marker that stands alone": files.encode("JPEG")[:-2] + b"\xff\x01\xff\xd9",
    "an empty packet": files.with_segment(files.encode("JPEG"), files.XMP_SEGMENT),
}


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_the_picture_is_the_same_and_exiv2_reads_the_text(data: bytes) -> None:
    new = embed(data)
    assert jpeg.read(new, "photo.jpg") == files.exiv2_alt_text(new) == TEXT
    assert files.exiv2_default(new, files.DESCRIPTION) == TEXT
    assert files.frames(new) == files.frames(data)
    assert embed(new) == new
    assert jpeg.read(embed(new, OTHER), "photo.jpg") == OTHER


@pytest.mark.parametrize("data", [data for name, data in PICTURES.items() if name != "with fill bytes"])
def test_all_other_segments_and_what_follows_are_the_same_bytes(data: bytes) -> None:
    assert files.without_xmp(embed(data)) == files.without_xmp(data)


def test_other_metadata_are_what_they_were_to_exiv2() -> None:
    with pyexiv2.ImageData(RICH) as old, pyexiv2.ImageData(embed(RICH)) as new:
        assert old.read_exif()
        assert new.read_exif() == old.read_exif()
        assert new.read_iptc() == old.read_iptc() == {
            "Iptc.Application2.Caption": "an IPTC caption",
            "Iptc.Application2.City": "Bonn",
        }  # fmt: skip
        assert new.read_icc() == old.read_icc() == files.PROFILE
        assert new.read_comment() == old.read_comment() == "a comment"
        found = new.read_xmp()
        assert (
            found.pop("Xmp.iptc.AltTextAccessibility") == found.pop("Xmp.dc.description") == {'lang="x-default"': TEXT}
        )
        assert found == old.read_xmp()
        assert found["Xmp.photoshop.City"] == "Köln"
        assert found["Xmp.dc.subject"] == ["Hündchen", "grass"]


def test_a_packet_with_room_leaves_every_byte_at_its_place() -> None:
    data = files.encode("JPEG", xmp=files.packet(3000))
    assert len(embed(data)) == len(data)


def markers(data: bytes) -> list[tuple[int, bytes]]:
    return [(marker, content[:4]) for marker, content in files.jpeg_segments(data)]


def test_a_new_segment_comes_after_jfif_and_exif() -> None:
    data = files.encode("JPEG", exif=files.exif(), icc_profile=files.PROFILE)
    old, new = markers(data), markers(embed(data))
    assert old[:3] == [(0xE0, b"JFIF"), (0xE1, b"Exif"), (0xE2, b"ICC_")]
    assert new == [*old[:2], (0xE1, b"http"), *old[2:]]


def test_without_exif_a_new_segment_comes_after_jfif() -> None:
    assert markers(embed(PICTURES["plain"]))[:2] == [(0xE0, b"JFIF"), (0xE1, b"http")]


def test_without_jfif_and_exif_a_new_segment_comes_first() -> None:
    assert markers(embed(PICTURES["without JFIF"]))[0] == (0xE1, b"http")


def test_a_packet_that_is_there_stays_at_its_place() -> None:
    data = files.with_segment(PICTURES["with Exif"], files.XMP_SEGMENT + files.packet(), before=0xDA)
    assert markers(embed(data)) == markers(data)
    assert markers(data)[-2] == (0xE1, b"http")


def test_fill_bytes_before_a_packet_stay_if_nothing_else_changes() -> None:
    place = (new := embed(PICTURES["plain"])).index(b"\xff\xe1")
    filled = new[:place] + b"\xff\xff" + new[place:]
    assert embed(filled) == filled
    assert jpeg.read(embed(filled, OTHER), "photo.jpg") == OTHER


def test_of_several_packets_each_gets_the_text() -> None:
    data = files.with_segment(RICH, files.XMP_SEGMENT + files.packet(10))
    found = [
        content[len(files.XMP_SEGMENT) :]
        for _, content in files.jpeg_segments(embed(data))
        if b"ns.adobe.com/xap" in content[:40]
    ]
    assert len(found) == 2
    assert [files.default_of(packet, files.ALT_TEXT) for packet in found] == [TEXT, TEXT]


def test_a_packet_without_room_is_refused() -> None:
    empty = files.packet(0)
    data = files.encode("JPEG", xmp=empty.replace(b"grass", b"g" * (65_300 - len(empty))))
    with pytest.raises(ImageError, match=r"would be larger than the 65,502 bytes.*sidecar") as caught:
        embed(data)
    assert caught.value.code == "metadata_too_large"


def test_a_packet_may_fill_its_segment() -> None:
    short = embed(files.encode("JPEG", xmp=files.packet(0)), "dog")
    packet = next(body for _, body in files.jpeg_segments(short) if body.startswith(files.XMP_SEGMENT))
    room = 65_502 + len(files.XMP_SEGMENT) - len(packet)
    full, fuller = (
        files.encode("JPEG", xmp=files.packet(0).replace(b"grass", b"g" * (5 + more))) for more in (room, room + 1)
    )
    new = embed(full, "dog")
    assert jpeg.read(new, "photo.jpg") == files.exiv2_alt_text(new) == "dog"
    with pytest.raises(ImageError, match="would be larger"):
        embed(fuller, "dog")


# Damage

SCANS = PICTURES["progressive"]
SECOND_SCAN = SCANS.index(b"\xff\xda", SCANS.index(b"\xff\xda") + 2)
AN_END_IN_A_COMMENT = SCANS[:SECOND_SCAN] + files.segment(0xFE, b"\xff\xd9") + SCANS[SECOND_SCAN:]

REFUSED = {
    "cut in the picture": (RICH[:-10], "too early"),
    "without its end": (RICH[:-2], "too early"),
    "cut in the segments": (RICH[:700], "too early"),
    "cut in a length": (RICH[:5], "too early"),
    "with an end in a comment only": (AN_END_IN_A_COMMENT[:-2], "too early"),
    "nothing but a start": (b"\xff\xd8\xff", "too early"),
    "no picture": (b"\xff\xd8" + files.segment(0xE0, b"JFIF\0") + b"\xff\xd9", "without a picture"),
    "no marker": (b"\xff\xd8" + files.segment(0xE0, b"JFIF\0") + b"junk" + RICH[20:], "byte 11 begins no JPEG segment"),
    "a second start": (b"\xff\xd8" + RICH, "byte 2 begins no JPEG segment"),
    "endless fill": (b"\xff\xd8" + b"\xff" * 100_000, "byte 2 begins no JPEG segment"),
    "no length": (b"\xff\xd8\xff\xe0\0\1" + RICH[2:], "byte 2 has no length"),
    "endless segments": (b"\xff\xd8" + b"\xff\xe0\0\2" * 20_000 + RICH[2:], "more than 10,000 segments"),
    "broken XMP": (files.encode("JPEG", xmp=files.packet()[:-300].replace(b"rdf:Alt", b"rdf:A<")), "XMP metadata"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_damaged_files_are_refused_with_the_cause(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        embed(data)
    assert "photo.jpg" in str(caught.value)


DAMAGED = st.sampled_from(
    [RICH, files.several(), PICTURES["progressive"], files.extended(second=files.lang_alt("dc:description", "old"))]
)
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 9), st.binary(max_size=6)), min_size=1, max_size=5)


@given(data=DAMAGED, changes=CHANGES, cut=st.none() | st.integers(0, 6000), early=st.booleans())
def test_whatever_the_bytes_there_is_a_file_with_the_text_or_an_error(
    data: bytes, changes: list[tuple[int, int, bytes]], cut: int | None, early: bool
) -> None:
    for place, length, new in changes:
        at = place % (1200 if early else len(data))
        data = data[:at] + new + data[at + length :]
    data = data if cut is None else data[: len(data) - cut]
    try:
        found = jpeg.read(data, "photo.jpg")
        new = embed(data)
    except CaptionerError:
        return
    assert found is None or isinstance(found, str)
    assert jpeg.read(new, "photo.jpg") == TEXT


@given(tail=st.binary(max_size=200))
def test_whatever_follows_the_beginning_is_refused_or_kept(tail: bytes) -> None:
    try:
        new = embed(b"\xff\xd8\xff" + tail)
    except ImageError:
        return
    assert jpeg.read(new, "photo.jpg") == TEXT
