"""XMP that needs more than one segment of a JPEG file: a second packet, in parts, that the first one names."""

from __future__ import annotations

import hashlib
import struct

import picture_files as files
import pytest

from captioner.metadata import jpeg
from captioner.metadata.xmp import ALT_TEXT, DESCRIPTION, Packet

TEXT = 'Ein Hund & <zwei> "Katzen" — 狗 🐕'
OTHER = "a cat"


def embed(data: bytes, text: str = TEXT, *, keep_description: bool = True) -> bytes:
    return jpeg.embed(data, text, "photo.jpg", keep_description=keep_description)


def put_together(data: bytes) -> tuple[bytes, bytes]:
    """The first packet and the second one, after checking that the one names the other and nothing is missing."""
    contents = [content for marker, content in files.jpeg_segments(data) if marker == 0xE1]
    (main,) = (content[len(files.XMP_SEGMENT) :] for content in contents if content.startswith(files.XMP_SEGMENT))
    parts = [
        content[len(files.EXTENSION_SEGMENT) :] for content in contents if content.startswith(files.EXTENSION_SEGMENT)
    ]
    digests, lengths = {part[:32] for part in parts}, {part[32:36] for part in parts}
    more = bytearray(int.from_bytes(*lengths))
    for part in parts:
        at = int.from_bytes(part[36:40])
        more[at : at + len(part) - 40] = part[40:]
    assert digests == {hashlib.md5(more).hexdigest().upper().encode()}
    assert b'HasExtendedXMP="' + digests.pop() in main
    return main, bytes(more)


def test_a_second_packet_without_the_property_stays_as_it_is() -> None:
    data = files.extended()
    new = embed(data)
    assert put_together(new)[1] == put_together(data)[1]
    assert jpeg.read(new, "photo.jpg") == files.exiv2_alt_text(new) == TEXT


def test_an_alt_text_in_the_second_packet_is_found_and_replaced() -> None:
    german = '<rdf:li xml:lang="de">alt</rdf:li>'
    data = files.extended(second=files.lang_alt("Iptc4xmpCore:AltTextAccessibility", "old", german))
    assert jpeg.read(data, "photo.jpg") == "old"
    new = embed(data)
    assert jpeg.read(new, "photo.jpg") == TEXT
    main, more = put_together(new)
    assert Packet(main, "").text(ALT_TEXT) == Packet(more, "").text(ALT_TEXT) == TEXT
    assert german.encode() in more
    assert b"D" * 150_000 in more
    assert files.frames(new) == files.frames(data)
    assert embed(new) == new
    assert Packet(put_together(embed(new, OTHER))[1], "").text(ALT_TEXT) == OTHER


def test_a_description_in_the_second_packet_is_somebodys_too() -> None:
    data = files.extended(second=files.lang_alt("dc:description", "by the photographer"))
    main, more = put_together(embed(data))
    assert Packet(main, "").text(DESCRIPTION) is None
    assert Packet(more, "").text(DESCRIPTION) == "by the photographer"
    main, more = put_together(embed(data, keep_description=False))
    assert Packet(main, "").text(DESCRIPTION) == Packet(more, "").text(DESCRIPTION) == TEXT


@pytest.mark.parametrize("second", ["</rdf:li>", "&lol;"])
def test_a_second_packet_that_cannot_be_read_stays_as_it_is(second: str) -> None:
    data = files.extended(second=second)
    assert put_together(embed(data))[1] == put_together(data)[1]


@pytest.mark.parametrize("take", [slice(1, None), slice(-1), slice(0, None, 2), slice(0)])
def test_an_incomplete_second_packet_stays_as_it_is(take: slice) -> None:
    data = files.extended(second=files.lang_alt("Iptc4xmpCore:AltTextAccessibility", "old"), take=take)
    assert jpeg.read(data, "photo.jpg") is None
    new = embed(data)
    assert files.without_xmp(new) == files.without_xmp(data)
    assert jpeg.read(new, "photo.jpg") == TEXT


def test_the_parts_of_a_second_packet_may_come_in_any_order() -> None:
    data = files.extended(second=files.lang_alt("Iptc4xmpCore:AltTextAccessibility", "old"), take=slice(None, None, -1))
    assert jpeg.read(data, "photo.jpg") == "old"
    new = embed(data)
    assert Packet(put_together(new)[1], "").text(ALT_TEXT) == TEXT


def test_parts_of_a_packet_that_is_not_named_stay_as_they_are() -> None:
    data = files.extended(second=files.lang_alt("Iptc4xmpCore:AltTextAccessibility", "old"))
    left = files.EXTENSION_SEGMENT + b"0" * 32 + struct.pack(">II", 4, 0) + b"left"
    new = embed(files.with_segment(data, left))
    assert (0xE1, left) in files.jpeg_segments(new)
    assert jpeg.read(new, "photo.jpg") == TEXT
    assert Packet(put_together(new.replace(files.segment(0xE1, left), b""))[1], "").text(ALT_TEXT) == TEXT
