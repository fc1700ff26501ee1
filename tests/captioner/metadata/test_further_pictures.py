"""JPEG files of several pictures: the index in the first one leads to the others, before and after."""

from __future__ import annotations

import struct

import picture_files as files
import pytest

from captioner.metadata import jpeg

TEXT = 'Ein Hund & <zwei> "Katzen" — 狗 🐕'


def embed(data: bytes, text: str = TEXT) -> bytes:
    return jpeg.embed(data, text, "photo.jpg", keep_description=True)


def index(data: bytes) -> list[tuple[int, int]]:
    """Where the index of a file says that each picture begins and ends."""
    start = data.index(b"MPF\0") + 4
    order = "<" if data[start : start + 2] == b"II" else ">"
    (directory,) = struct.unpack_from(f"{order}I", data, start + 4)
    (count,) = struct.unpack_from(f"{order}H", data, start + directory)
    fields = [struct.unpack_from(f"{order}HHII", data, start + directory + 2 + 12 * at) for at in range(count)]
    (size, place) = next((size, place) for tag, _, size, place in fields if tag == 0xB002)
    found = []
    for at in range(start + place, start + place + size, 16):
        _, length, offset = struct.unpack_from(f"{order}III", data, at)
        begins = start + offset if offset else 0
        found.append((begins, begins + length))
    return found


def check_index(data: bytes) -> None:
    places = index(data)
    assert [begin for begin, _ in places] == [0, *(end for _, end in places[:-1])]
    for begin, end in places:
        assert data[begin : begin + 3] == b"\xff\xd8\xff"
        assert data[begin:end].rstrip(b"\0").endswith(b"\xff\xd9")  # Pillow makes lengths even


@pytest.mark.parametrize("exif", [True, False])
def test_further_pictures_are_found_again(exif: bool) -> None:
    data = files.several(with_exif=exif)
    check_index(data)
    new = embed(data)
    check_index(new)
    assert len(new) > len(data)
    assert files.frames(new) == files.frames(data)
    old_end, new_end = index(data)[0][1], index(new)[0][1]
    assert new[new_end:] == data[old_end:]


@pytest.mark.parametrize("packet", [files.packet(0), files.packet(3000), b""])
def test_they_are_found_when_the_packet_grows_after_their_index(packet: bytes) -> None:
    data = files.several()
    size = len(files.XMP_SEGMENT) + len(packet) + 4
    place = data.index(b"\xff\xdb", data.index(b"MPF\0"))
    data = data[:place] + files.segment(0xE1, files.XMP_SEGMENT + packet) + data[place:]
    data = with_index(data, [(0, size)] + [(size, 0)] * 2)
    check_index(data)
    assert len(files.frames(data)) == 3
    new = embed(data)
    check_index(new)
    assert files.frames(new) == files.frames(data)
    longer = embed(new, "long " * 900)
    check_index(longer)
    assert files.frames(longer) == files.frames(data)


def with_index(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    """The file with other offsets and sizes of its pictures."""
    start = data.index(b"MPF\0") + 4
    order = "<" if data[start : start + 2] == b"II" else ">"
    (place,) = (at for at in range(start, start + 200) if data[at : at + 4] == struct.pack(f"{order}HH", 0xB002, 7))
    (entries,) = struct.unpack_from(f"{order}I", data, place + 8)
    changed = bytearray(data)
    for number, (offset, size) in enumerate(changes):
        at = start + entries + 16 * number + 4
        old_size, old_offset = struct.unpack_from(f"{order}II", data, at)
        struct.pack_into(f"{order}II", changed, at, old_size + size, old_offset + offset)
    return bytes(changed)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"XX*\0\x08\0\0\0\0\0",
        b"MM\0*\0\0\0\x08\0\1",
    ],
)
def test_an_index_that_nobody_understands_stays_as_it_is(content: bytes) -> None:
    data = files.with_segment(files.encode("JPEG"), b"MPF\0" + content, marker=0xE2)
    new = embed(data)
    assert files.without_xmp(new) == files.without_xmp(data)
    assert jpeg.read(new, "photo.jpg") == TEXT
