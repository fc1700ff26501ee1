"""Alt text in JPEG files.

XMP is a segment (XMP specification part 3, 1.1.3) of at most 65,502 bytes before the picture's data; what has no room
in it lies in further ones, see :mod:`captioner.metadata.extended`. A new one is put behind JFIF and Exif, which must
come first, and thereby before the index of a file of several pictures, see :mod:`captioner.metadata.mpf`.

Nothing behind the segments changes: neither the picture's data nor what follows it, such as the videos of motion
photos, gain maps and the makers' own data. Whatever finds these from the file's end, from the picture's end or by that
index finds them as before. A few old cameras store a preview there that is found from the Exif data instead; it is
lost to view, as with any program that makes room for metadata.
"""

from __future__ import annotations

from captioner.metadata import extended, mpf
from captioner.metadata.edits import Edit, Slices, apply
from captioner.metadata.segments import APP0, APP1, APP2, Segment, check_end, segment, segments
from captioner.metadata.xmp import ALT_TEXT, Packet, first_text, new_packet, texts_to_write, too_large

SIGNATURE = b"\xff\xd8\xff"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXIF = b"Exif\0\0"
MAX_PACKET = 65_502  # bytes


def read(data: Slices, name: str) -> str | None:
    """The alt text of a file.

    Args:
        data: the file.
        name: of the file, for messages.

    Raises:
        ImageError: the file, or its XMP, is damaged.
    """
    head = segments(data, name)
    packets = list(_packets(data, head, name).values())
    extension = extended.find(data, head, packets, name)
    return first_text(packets if extension is None else [*packets, extension.packet], ALT_TEXT)


def embed(data: bytes, text: str, name: str, *, keep_description: bool) -> bytes:
    """The file with an alt text: the same bytes if it has it already.

    Args:
        data: the file.
        text: the alt text.
        name: of the file, for messages.
        keep_description: see :func:`captioner.metadata.xmp.texts_to_write`.

    Raises:
        ImageError: the file is damaged or incomplete, or its XMP cannot be read or has no room.
        OptionError: the text is empty.
    """
    head = segments(data, name)
    check_end(data, head[-1], name)
    packets = _packets(data, head, name) or {_place_of_new(data, head): Packet(new_packet(), name)}
    extension = extended.find(data, head, list(packets.values()), name)
    found = [*packets.values()] if extension is None else [*packets.values(), extension.packet]
    texts = texts_to_write(found, text, keep_description=keep_description)
    edits, digest = ([], b"") if extension is None else extension.with_texts(texts)
    for place, packet in packets.items():
        new = packet.with_texts(texts)
        if extension is not None:
            new = new.replace(extension.digest, digest)  # which are of one length
        if new != packet.raw:
            if len(new) > MAX_PACKET:
                raise too_large(name, f"the {MAX_PACKET:,} bytes that a JPEG file has for them")
            edits.append(Edit(place.start, place.end, segment(XMP + new)))
    for index in head:
        if index.is_of(data, APP2, mpf.IDENTIFIER):
            edits += mpf.moved(data, index.content + len(mpf.IDENTIFIER), index.end, edits)
    return apply(data, edits)


def _packets(data: Slices, head: list[Segment], name: str) -> dict[Segment, Packet]:
    """The packets and where they stand. There should be one; of more, some readers take the first, some the last."""
    places = [place for place in head if place.is_of(data, APP1, XMP)]
    return {place: Packet(data[place.content + len(XMP) : place.end], name) for place in places}


def _place_of_new(data: bytes, head: list[Segment]) -> Segment:
    """An empty segment where a new packet belongs."""
    place = max((at.end for at in head if at.marker == APP0 or at.is_of(data, APP1, EXIF)), default=2)
    return Segment(APP1, place, place, place)
