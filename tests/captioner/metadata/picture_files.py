"""Picture files with all sorts of metadata, and what other programs find in them."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyexiv2
from PIL import Image, ImageCms

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
ALT_TEXT = "{http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/}AltTextAccessibility"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"

XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
EXTENSION_SEGMENT = b"http://ns.adobe.com/xmp/extension/\0"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

# A packet as photo programs write it: attributes and elements, several descriptions, padding.
PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Some Program 1.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
   xmp:Rating="4"
   xmp:CreatorTool="A &lt;&quot;camera&quot;> of 'mine'">
   <!-- kept as well -->
   <dc:subject>
    <rdf:Bag>
     <rdf:li>Hündchen</rdf:li>
     <rdf:li>grass</rdf:li>
    </rdf:Bag>
   </dc:subject>
   <dc:title>
    <rdf:Alt><rdf:li xml:lang="x-default">A title</rdf:li><rdf:li xml:lang="de">Titel</rdf:li></rdf:Alt>
   </dc:title>
  </rdf:Description>
  <rdf:Description rdf:about="" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:City="Köln"/>
 </rdf:RDF>
</x:xmpmeta>
%s
<?xpacket end="w"?>"""


def packet(padding: int = 2000) -> bytes:
    return (PACKET % (" " * padding)).encode()


def pixels(*, alpha: bool = False, seed: int = 0) -> Image.Image:
    """Noise over a gradient: no two pixels alike, so that every change shows."""
    shape = (37, 53, 4 if alpha else 3)  # odd sides
    noise = np.random.default_rng(seed).integers(0, 64, shape)
    return Image.fromarray((noise + np.arange(53)[:, None] * 3).astype(np.uint8))


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x010E] = "a description in Exif"
    tags[0x0112] = 6
    return tags


def encode(format_: str, image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or pixels()).save(buffer, format_, **options)
    return buffer.getvalue()


def frames(data: bytes) -> list[tuple[str, bytes]]:
    """Every picture of a file as Pillow decodes it: its mode and its pixels."""
    with Image.open(io.BytesIO(data)) as image:
        found = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append((image.mode, image.tobytes()))
        return found


def exiv2_alt_text(data: bytes) -> str | None:
    """The default alt text that exiv2 finds, as it writes it itself."""
    return exiv2_default(data, ALT_TEXT)


def exiv2_default(data: bytes, name: str) -> str | None:
    with pyexiv2.ImageData(data) as image:
        return default_of(image.read_raw_xmp().encode(), name)


def default_of(xmp: bytes, name: str) -> str | None:
    if not xmp:
        return None
    texts = [item.text or "" for item in items(xmp, name) if item.get(LANGUAGE) == "x-default"]
    assert len(texts) <= 1
    return texts[0] if texts else None


def items(xmp: bytes, name: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(xmp.strip(b"\0")).findall(f".//{RDF}Description/{name}/{RDF}Alt/{RDF}li")


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_segments(data: bytes) -> list[tuple[int, bytes]]:
    """The segments of a JPEG file, and last everything from the start of the picture's data on."""
    found, position = [], 2
    while data[position + 1] != 0xDA:
        marker, length = struct.unpack_from(">xBH", data, position)
        found.append((marker, data[position + 4 : position + 2 + length]))
        position += 2 + length
    return [*found, (0xDA, data[position:])]


def without_xmp(data: bytes) -> list[tuple[int, bytes]]:
    return [part for part in jpeg_segments(data) if not part[1].startswith(XMP_SEGMENT)]


def with_segment(data: bytes, content: bytes, *, marker: int = 0xE1, before: int = 0xDB) -> bytes:
    """A JPEG file with one more segment, before the first one of a kind."""
    pieces, done = [data[:2]], False
    for kind, body in jpeg_segments(data):
        if kind == before and not done:
            pieces.append(segment(marker, content))
            done = True
        pieces.append(body if kind == 0xDA else segment(kind, body))
    assert done
    return b"".join(pieces)


def several(*, with_exif: bool = True) -> bytes:
    """Three pictures, one behind the other, as Pillow writes them with an index."""
    others = [pixels(seed=seed) for seed in (1, 2)]
    options: dict[str, object] = {"exif": exif()} if with_exif else {}
    data = encode("MPO", save_all=True, append_images=others, **options)
    assert len(frames(data)) == 3
    return data


def extended(*, second: str = "", take: slice = slice(None)) -> bytes:
    """A photo with so much XMP that it needs a second packet: depth data, and what is given."""
    depth = "D" * 150_000
    names = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    more = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {names}><rdf:Description rdf:about="" '
        f'xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/" GDepth:Data="{depth}">{second}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()
    digest = hashlib.md5(more).hexdigest().upper()
    main = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {names}><rdf:Description rdf:about="" '
        f'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="{digest}"></rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()
    parts = [
        EXTENSION_SEGMENT + digest.encode() + struct.pack(">II", len(more), at) + more[at : at + 60_000]
        for at in range(0, len(more), 60_000)
    ]
    data = with_segment(encode("JPEG"), XMP_SEGMENT + main)
    for content in parts[take]:
        data = with_segment(data, content)
    return data


def lang_alt(name: str, text: str, more: str = "") -> str:
    iptc = 'xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"'
    return f'<{name} {iptc}><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li>{more}</rdf:Alt></{name}>'


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, position = [], 8
    while not found or found[-1][0] != b"IEND":
        (length,) = struct.unpack_from(">I", data, position)
        found.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        assert checksum == zlib.crc32(data[position + 4 : position + 8 + length])
        position += 12 + length
    return found


def webp_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a WebP file, whose sizes must be right to the byte."""
    found, position = [], 12
    end = 8 + int.from_bytes(data[4:8], "little")
    while position < end:
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        found.append((data[position : position + 4], data[position + 8 : position + 8 + size]))
        position += 8 + size + size % 2
    assert position == end
    return found


def webp_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def exiv2_alt_text_of(path: Path) -> str | None:
    with pyexiv2.Image(str(path)) as image:
        return default_of(image.read_raw_xmp().encode(), ALT_TEXT)


# Files to lie on a disk
DATE = 981_173_106_123_456_789  # a photo of 2001, to the nanosecond
SEEN = 981_173_999_987_654_321

PICTURES = {
    "photo.jpg": encode("JPEG", exif=exif(), xmp=packet()),
    "drawing.png": encode("PNG", pixels(alpha=True)),
    "page.webp": encode("WEBP"),
    "lossless.webp": encode("WEBP", pixels(alpha=True), lossless=True),
    "a name; with 'everything' — 狗.JPG": encode("JPEG"),
    "without an ending": encode("PNG"),
}
