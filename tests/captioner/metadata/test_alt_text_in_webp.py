"""WebP: the alt text goes into a chunk at the end, which needs the extended format; the pictures' chunks stay."""

from __future__ import annotations

import picture_files as files
import pyexiv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import CaptionerError, ImageError
from captioner.metadata import webp

TEXT = 'Ein Hund & <zwei> "Katzen" — 狗 🐕'
OTHER = "a cat"
ICC, ALPHA, EXIF, XMP, ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02


def embed(data: bytes, text: str = TEXT) -> bytes:
    return webp.embed(data, text, "photo.webp", keep_description=True)


def riff(chunks: list[tuple[bytes, bytes]]) -> bytes:
    body = b"WEBP" + b"".join(files.webp_chunk(kind, content) for kind, content in chunks)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def animated(*, alpha: bool = False, **options: object) -> bytes:
    others = [files.pixels(alpha=alpha, seed=seed) for seed in (1, 2)]
    return files.encode("WEBP", files.pixels(alpha=alpha), save_all=True, append_images=others, duration=40, **options)


METADATA: dict[str, object] = {"exif": files.exif(), "icc_profile": files.PROFILE}
LOSSY = files.encode("WEBP")
LOSSLESS = files.encode("WEBP", lossless=True)
WITH_METADATA = files.encode("WEBP", **METADATA)
RICH = files.encode("WEBP", **METADATA, xmp=files.packet())
# The file -> the flags that it must have at the end.
PICTURES = {
    "lossy": (LOSSY, XMP),
    "lossless": (LOSSLESS, XMP),
    "lossy with alpha": (files.encode("WEBP", files.pixels(alpha=True)), XMP | ALPHA),
    "lossless with alpha": (files.encode("WEBP", files.pixels(alpha=True), lossless=True), XMP | ALPHA),
    "animated": (animated(), XMP | ANIMATION),
    "animated with alpha": (animated(alpha=True, lossless=True), XMP | ANIMATION | ALPHA),
    "with metadata": (WITH_METADATA, XMP | EXIF | ICC),
    "with XMP": (RICH, XMP | EXIF | ICC),
    "animated with XMP": (animated(**METADATA, xmp=files.packet()), XMP | EXIF | ICC | ANIMATION),
    "with XMP of odd length": (files.encode("WEBP", xmp=files.packet(101)), XMP),
    "with an empty packet": (riff([*files.webp_chunks(WITH_METADATA), (b"XMP ", b"")]), XMP | EXIF | ICC),
    "a simple file with Exif": (riff([*files.webp_chunks(LOSSY), (b"EXIF", files.exif().tobytes())]), XMP | EXIF),
    "with an unknown chunk": (riff([*files.webp_chunks(RICH), (b"ABCD", b"odd")]), XMP | EXIF | ICC),
    "with something behind": (RICH + b"behind", XMP | EXIF | ICC),
}  # fmt: skip
BYTES = {name: data for name, (data, _) in PICTURES.items()}


@pytest.mark.parametrize("data", BYTES.values(), ids=BYTES)
def test_the_picture_is_the_same_and_exiv2_reads_the_text(data: bytes) -> None:
    new = embed(data)
    assert webp.read(new, "photo.webp") == files.exiv2_alt_text(new) == TEXT
    assert files.exiv2_default(new, files.DESCRIPTION) == TEXT
    assert files.frames(new) == files.frames(data)
    assert embed(new) == new
    assert webp.read(embed(new, OTHER), "photo.webp") == OTHER


@pytest.mark.parametrize(("data", "flags"), PICTURES.values(), ids=PICTURES)
def test_the_first_chunk_says_what_there_is(data: bytes, flags: int) -> None:
    kind, content = files.webp_chunks(embed(data))[0]
    assert kind == b"VP8X"
    assert content == bytes((flags, 0, 0, 0)) + (53 - 1).to_bytes(3, "little") + (37 - 1).to_bytes(3, "little")


def others(data: bytes) -> list[tuple[bytes, bytes]]:
    return [chunk for chunk in files.webp_chunks(data) if chunk[0] not in (b"VP8X", b"XMP ")]


@pytest.mark.parametrize("data", BYTES.values(), ids=BYTES)
def test_all_other_chunks_and_what_follows_are_the_same_bytes(data: bytes) -> None:
    new = embed(data)
    assert others(new) == others(data)
    old_end, new_end = (8 + int.from_bytes(of[4:8], "little") for of in (data, new))
    assert new[new_end:] == data[old_end:]


def test_a_new_chunk_comes_last_and_one_that_is_there_stays() -> None:
    assert [kind for kind, _ in files.webp_chunks(embed(LOSSY))] == [b"VP8X", b"VP8 ", b"XMP "]
    data = BYTES["with an unknown chunk"]
    assert [kind for kind, _ in files.webp_chunks(embed(data))] == [kind for kind, _ in files.webp_chunks(data)]


def test_other_metadata_are_what_they_were_to_exiv2() -> None:
    with pyexiv2.ImageData(RICH) as old, pyexiv2.ImageData(embed(RICH)) as new:
        assert new.read_exif() == old.read_exif()
        assert new.read_icc() == old.read_icc() == files.PROFILE
        found = new.read_xmp()
        assert (
            found.pop("Xmp.iptc.AltTextAccessibility") == found.pop("Xmp.dc.description") == {'lang="x-default"': TEXT}
        )
        assert found == old.read_xmp()
        assert found["Xmp.photoshop.City"] == "Köln"


def test_sizes_up_to_the_largest_are_told() -> None:
    wide = files.encode("WEBP", files.pixels().resize((16_383, 1)))
    tall = files.encode("WEBP", files.pixels().resize((1, 16_383)), lossless=True)
    for data in (wide, tall):
        assert files.frames(embed(data)) == files.frames(data)
    assert files.webp_chunks(embed(wide))[0][1][4:] == b"\xfe\x3f\0\0\0\0"
    assert files.webp_chunks(embed(tall))[0][1][4:] == b"\0\0\0\xfe\x3f\0"


def test_a_missing_last_byte_is_put_in() -> None:
    data = riff([*files.webp_chunks(WITH_METADATA), (b"ABCD", b"odd")])
    short = data[:4] + (len(data) - 9).to_bytes(4, "little") + data[8:-1]
    assert others(embed(short)) == others(data)
    assert files.frames(embed(short)) == files.frames(data)


def test_of_several_packets_each_gets_the_text() -> None:
    data = riff([*files.webp_chunks(RICH), (b"XMP ", files.packet(7))])
    packets = [content for kind, content in files.webp_chunks(embed(data)) if kind == b"XMP "]
    assert [files.default_of(packet, files.ALT_TEXT) for packet in packets] == [TEXT, TEXT]


def simple(content: bytes, kind: bytes = b"VP8 ") -> bytes:
    return riff([(kind, content)])


(_, FRAME), (_, STREAM) = files.webp_chunks(LOSSY)[0], files.webp_chunks(LOSSLESS)[0]
REFUSED = {
    "cut": (LOSSY[:-20], "too early"),
    "cut in the header": (LOSSY[:15], "too early"),
    "nothing but a header": (riff([]), "too early"),
    "a chunk too long": (RICH[:16] + b"\xff\xff\xff\xff" + RICH[20:], "too early"),
    "no picture": (riff([(b"EXIF", b"")]), "without a picture"),
    "a picture cut off": (simple(FRAME[:9]), "picture's size"),
    "no key frame": (simple(FRAME[:3] + b"\0\0\0" + FRAME[6:]), "picture's size"),
    "no width": (simple(FRAME[:6] + b"\0\0" + FRAME[8:]), "picture's size"),
    "no lossless picture": (simple(b"\0" + STREAM[1:], b"VP8L"), "picture's size"),
    "lossless cut off": (simple(STREAM[:4], b"VP8L"), "picture's size"),
    "a short first chunk": (riff([(b"VP8X", b"\0" * 8), (b"VP8 ", FRAME)]), "picture's size"),
    "another first chunk": (riff([(b"EXIF", b""), (b"VP8 ", FRAME)]), "picture's size"),
    "broken XMP": (riff([*files.webp_chunks(LOSSY), (b"XMP ", files.packet(0)[:-60])]), "XMP metadata"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_damaged_files_are_refused_with_the_cause(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        embed(data)
    assert "photo.webp" in str(caught.value)


def test_a_file_that_would_be_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webp, "LARGEST", len(RICH))
    with pytest.raises(ImageError, match="would be larger than a WebP file can be") as caught:
        embed(RICH, "long " * 1000)
    assert caught.value.code == "metadata_too_large"


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 9), st.binary(max_size=6)), min_size=1, max_size=5)


@given(data=st.sampled_from([LOSSY, LOSSLESS, RICH, BYTES["animated"]]), changes=CHANGES, early=st.booleans())
def test_whatever_the_bytes_there_is_a_file_with_the_text_or_an_error(
    data: bytes, changes: list[tuple[int, int, bytes]], early: bool
) -> None:
    for place, length, new in changes:
        at = 12 + place % (50 if early else len(data) - 12)
        data = data[:at] + new + data[at + length :]
    try:
        found = webp.read(data, "photo.webp")
        new = embed(data)
    except CaptionerError:
        return
    assert found is None
    assert webp.read(new, "photo.webp") == TEXT
