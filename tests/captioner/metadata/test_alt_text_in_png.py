"""PNG: the alt text goes into a chunk at the beginning; all others stay byte for byte."""

from __future__ import annotations

import zlib

import picture_files as files
import pyexiv2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import PngImagePlugin

from captioner.errors import CaptionerError, ImageError
from captioner.metadata import png

TEXT = 'Ein Hund & <zwei> "Katzen" — 狗 🐕'
OTHER = "a cat"
KEYWORD = b"XML:com.adobe.xmp\0"


def embed(data: bytes, text: str = TEXT) -> bytes:
    return png.embed(data, text, "photo.png", keep_description=True)


def with_chunk(data: bytes, kind: bytes, content: bytes, *, before: bytes = b"IDAT") -> bytes:
    pieces, done = [data[:8]], False
    for other, body in files.png_chunks(data):
        if other == before and not done:
            pieces.append(files.png_chunk(kind, content))
            done = True
        pieces.append(files.png_chunk(other, body))
    return b"".join(pieces) + data[data.index(b"IEND") + 8 :]


def xmp_chunk(packet: bytes, *, compressed: bool = False, language: bytes = b"", keyword: bytes = b"") -> bytes:
    flags = b"\1\0" if compressed else b"\0\0"
    return KEYWORD + flags + language + b"\0" + keyword + b"\0" + (zlib.compress(packet) if compressed else packet)


def rich() -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "a title")
    texts.add_text("Comment", "long " * 100, zip=True)
    texts.add_itxt("Author", "Ä", lang="de", tkey="Autor")
    return files.encode("PNG", pnginfo=texts, exif=files.exif(), icc_profile=files.PROFILE, dpi=(72, 72))


PLAIN = files.encode("PNG")
RICH = rich()
PICTURES = {
    "plain": PLAIN,
    "rich": RICH,
    "alpha": files.encode("PNG", files.pixels(alpha=True)),
    "palette": files.encode("PNG", files.pixels().quantize(16), transparency=3),
    "16 bits": files.encode("PNG", files.pixels().convert("I;16")),
    "animated": files.encode(
        "PNG", files.pixels(alpha=True), save_all=True, append_images=[files.pixels(alpha=True, seed=1)], duration=40
    ),
    "with XMP": with_chunk(RICH, b"iTXt", xmp_chunk(files.packet())),
    "with compressed XMP": with_chunk(RICH, b"iTXt", xmp_chunk(files.packet(), compressed=True)),
    "with XMP in a language": with_chunk(RICH, b"iTXt", xmp_chunk(files.packet(), language=b"en", keyword=b"xmp")),
    "with XMP at the end": with_chunk(PLAIN, b"iTXt", xmp_chunk(files.packet()), before=b"IEND"),
    "with an empty packet": with_chunk(PLAIN, b"iTXt", xmp_chunk(b"")),
    "with something behind": RICH + b"\0behind",
}


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_the_picture_is_the_same_and_exiv2_reads_the_text(data: bytes) -> None:
    new = embed(data)
    assert png.read(new, "photo.png") == files.exiv2_alt_text(new) == TEXT
    assert files.exiv2_default(new, files.DESCRIPTION) == TEXT
    assert files.frames(new) == files.frames(data)
    assert embed(new) == new
    assert png.read(embed(new, OTHER), "photo.png") == OTHER


def others(data: bytes) -> list[tuple[bytes, bytes]]:
    return [chunk for chunk in files.png_chunks(data) if not chunk[1].startswith(KEYWORD)]


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_all_other_chunks_and_what_follows_are_the_same_bytes(data: bytes) -> None:
    new = embed(data)
    assert others(new) == others(data)
    assert new[new.index(b"IEND") :] == data[data.index(b"IEND") :]


@pytest.mark.parametrize("name", [name for name in PICTURES if "XMP" in name])
def test_other_metadata_are_what_they_were_to_exiv2(name: str) -> None:
    data = PICTURES[name]
    with pyexiv2.ImageData(data) as old, pyexiv2.ImageData(embed(data)) as new:
        assert new.read_exif() == old.read_exif()
        assert new.read_icc() == old.read_icc()
        found = new.read_xmp()
        assert (
            found.pop("Xmp.iptc.AltTextAccessibility") == found.pop("Xmp.dc.description") == {'lang="x-default"': TEXT}
        )
        assert found == old.read_xmp()
        assert found["Xmp.photoshop.City"] == "Köln"


@pytest.mark.parametrize("name", ["plain", "animated", "palette"])
def test_a_new_chunk_comes_second_and_is_not_compressed(name: str) -> None:
    old, new = files.png_chunks(PICTURES[name]), files.png_chunks(embed(PICTURES[name]))
    (kind, content), rest = new[1], [new[0], *new[2:]]
    assert kind == b"iTXt"
    assert content.startswith(KEYWORD + b"\0\0\0\0<?xpacket")
    assert content.endswith(b'<?xpacket end="r"?>')
    assert rest == old


@pytest.mark.parametrize("name", [name for name in PICTURES if "XMP" in name])
def test_a_chunk_that_is_there_stays_at_its_place(name: str) -> None:
    old, new = files.png_chunks(PICTURES[name]), files.png_chunks(embed(PICTURES[name]))
    assert [kind for kind, _ in new] == [kind for kind, _ in old]
    (content,) = [content for _, content in new if content.startswith(KEYWORD)]
    assert content.startswith(KEYWORD + b"\0\0\0\0<?xpacket"), "it is not compressed"


def test_of_several_packets_each_gets_the_text() -> None:
    data = with_chunk(PICTURES["with XMP"], b"iTXt", xmp_chunk(files.packet(0)), before=b"IEND")
    packets = [content[len(KEYWORD) + 4 :] for _, content in files.png_chunks(embed(data)) if KEYWORD in content]
    assert [files.default_of(packet, files.ALT_TEXT) for packet in packets] == [TEXT, TEXT]


def test_a_text_of_another_kind_is_no_packet() -> None:
    data = with_chunk(PLAIN, b"tEXt", KEYWORD + b"no packet")
    assert png.read(data, "photo.png") is None
    assert others(embed(data))[0] == others(data)[0]


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


COMPRESSED = with_chunk(PLAIN, b"iTXt", xmp_chunk(files.packet(), compressed=True))
BOMB = with_chunk(PLAIN, b"iTXt", xmp_chunk(b" " * (80 << 20), compressed=True))
REFUSED = {
    "cut in the picture": (RICH[:-30], "too early"),
    "without its end": (PLAIN[:-12], "too early"),
    "without its last byte": (PLAIN[:-1], "too early"),
    "nothing but a signature": (PLAIN[:8], "too early"),
    "no picture": (PLAIN[:33] + PLAIN[-12:], "without a picture"),
    "no header": (PLAIN[:8] + PLAIN[33:], "byte 8 begins no PNG chunk"),
    "a chunk of no kind": (changed(PLAIN, b"IDAT", b"I\0AT"), "byte 33 begins no PNG chunk"),
    "a chunk too long": (PLAIN[:33] + b"\x80" + PLAIN[34:], "byte 33 begins no PNG chunk"),
    "a wrong checksum": (changed(PICTURES["with XMP"], b"grass", b"grasp"), "their checksum is wrong"),
    "an unknown compression": (with_chunk(PLAIN, b"iTXt", KEYWORD + b"\2\0\0\0<"), "too early"),
    "no text": (with_chunk(PLAIN, b"iTXt", KEYWORD + b"\0\0\0"), "too early"),
    "compression cut off": (with_chunk(PLAIN, b"iTXt", xmp_chunk(b"<a/>" * 99, compressed=True)[:-9]), "too early"),
    "damaged compression": (with_chunk(PLAIN, b"iTXt", KEYWORD + b"\1\0\0\0<no zlib>"), "compressed data are damaged"),
    "a bomb": (BOMB, "larger than 67,108,864 bytes"),
    "broken XMP": (with_chunk(PLAIN, b"iTXt", xmp_chunk(files.packet(0)[:-60])), "XMP metadata"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_damaged_files_are_refused_with_the_cause(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        embed(data)
    assert "photo.png" in str(caught.value)


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 9), st.binary(max_size=6)), min_size=1, max_size=5)


@given(data=st.sampled_from([PLAIN, RICH, COMPRESSED, PICTURES["animated"]]), changes=CHANGES, early=st.booleans())
def test_whatever_the_bytes_there_is_a_file_with_the_text_or_an_error(
    data: bytes, changes: list[tuple[int, int, bytes]], early: bool
) -> None:
    for place, length, new in changes:
        at = place % (300 if early else len(data))
        data = data[:at] + new + data[at + length :]
    try:
        found = png.read(data, "photo.png")
        new = embed(data)
    except CaptionerError:
        return
    assert found is None
    assert png.read(new, "photo.png") == TEXT


@given(packet=st.binary(max_size=60), compressed=st.booleans())
def test_whatever_the_packet_there_is_a_file_with_the_text_or_an_error(packet: bytes, compressed: bool) -> None:
    try:
        new = embed(with_chunk(PLAIN, b"iTXt", KEYWORD + bytes((compressed,)) + packet))
    except CaptionerError:
        return
    assert png.read(new, "photo.png") == TEXT
