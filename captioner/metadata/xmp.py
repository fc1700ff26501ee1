"""Alt text in an XMP packet, and everything else in the packet byte for byte as it was.

The alt text is the property ``AltTextAccessibility`` of the IPTC Core schema (IPTC Photo Metadata Standard 2021.1),
and ``dc:description`` beside it for the many programs that do not know that yet.

Texts are plain Unicode. What XML 1.0 cannot hold (2.2: most control characters, half surrogate pairs, U+FFFE, U+FFFF)
is left out, and so is U+007F, which common readers turn into a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from captioner.errors import ImageError, OptionError
from captioner.metadata import rdf
from captioner.metadata.alternatives import Property, default_text, replaced, written
from captioner.metadata.edits import Edit, apply, shifted
from captioner.metadata.encoding import decode
from captioner.metadata.rdf import RDF_NAMESPACE, SPACE, Element, NotXMPError

MAX_PACKET = 64 << 20  # bytes
META = "adobe:ns:meta/ xmpmeta"
FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x80-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NAME = re.compile(rb"<([^\s/>]+)")
ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*(?:"[^"]*"|'[^']*')""")
END_OF_PACKET = b"<?xpacket end="
BLANK = SPACE + b"\0"

ALT_TEXT = Property("http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/", "Iptc4xmpCore", "AltTextAccessibility")
DESCRIPTION = Property("http://purl.org/dc/elements/1.1/", "dc", "description")
EXTENSION = Property("http://ns.adobe.com/xmp/note/", "xmpNote", "HasExtendedXMP")
KNOWN = frozenset(known.name for known in (ALT_TEXT, DESCRIPTION, EXTENSION))

# The packet wrapper is that of the XMP specification part 1, 7.3; what it begins with is a byte order mark.
EMPTY = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
</x:xmpmeta>
<?xpacket end="%s"?>"""


def plain(text: str) -> str:
    """A text without the characters that an XMP packet cannot hold.

    Raises:
        OptionError: nothing that can be read is left.
    """
    text = FORBIDDEN.sub("", text)
    if not text.strip():
        raise OptionError("the alt text is empty; give a text that says what the picture shows")
    return text


def updated(packets: Sequence[bytes], text: str, name: str, *, keep_description: bool, end: str = "w") -> list[bytes]:
    """Every packet of a file with the alt text; a new packet if the file has none.

    Args:
        packets: as they stand in the file.
        text: the alt text.
        name: of the file, for messages.
        keep_description: see :func:`texts_to_write`.
        end: of a new packet, see :func:`new_packet`.

    Raises:
        ImageError: a packet cannot be read.
        OptionError: the text is empty.
    """
    found = [Packet(packet, name) for packet in packets]
    texts = texts_to_write(found, text, keep_description=keep_description)
    return [packet.with_texts(texts) for packet in found or [Packet(new_packet(end=end), name)]]


def new_packet(*, end: str = "w") -> bytes:
    """A packet without properties. With the ``end`` "r", programs that do not know the file's format leave it alone."""
    return (EMPTY % end).encode()


def texts_to_write(packets: Sequence[Packet], text: str, *, keep_description: bool) -> dict[Property, str]:
    """What is to be written into a file that has these packets.

    Args:
        packets: all of the file.
        text: the alt text.
        keep_description: leave a description that is there, unless it is the alt text that is there: then it was
            written together with that, and now they change together.

    Raises:
        OptionError: the text is empty.
    """
    texts = {ALT_TEXT: plain(text)}
    description = first_text(packets, DESCRIPTION)
    if not keep_description or description is None or description == first_text(packets, ALT_TEXT):
        texts[DESCRIPTION] = texts[ALT_TEXT]
    return texts


def first_text(packets: Sequence[Packet], of: Property) -> str | None:
    """The text of a property in the first packet that has one."""
    return next((text for packet in packets if (text := packet.text(of)) is not None), None)


def too_large(name: str, limit: str) -> ImageError:
    """The error that there is no room for an alt text."""
    return ImageError(
        f"the XMP metadata of {name} would be larger than {limit}; write the alt text into a sidecar file",
        code="metadata_too_large",
    )


class Packet:
    """An XMP packet.

    Args:
        raw: its bytes, with or without the packet wrapper. Nothing but space is a packet without properties.
        name: of the file it is from.

    Raises:
        ImageError: it is no XMP, its ``code`` is ``metadata_broken``; or it is too large to look at.
    """

    def __init__(self, raw: bytes, name: str) -> None:
        if len(raw) > MAX_PACKET:
            raise too_large(name, f"{MAX_PACKET:,} bytes")
        self.raw = raw
        try:
            self._encoded = decode(raw if raw.strip(BLANK) else new_packet())
            self._data = self._encoded.utf8
            self._root = rdf.parse(self._data, KNOWN)
            self._rdf = self._find_rdf()
        except NotXMPError as error:
            raise ImageError(
                f"the XMP metadata of {name} cannot be read: {error}; repair or remove them with a metadata editor",
                code="metadata_broken",
            ) from error

    def text(self, of: Property) -> str | None:
        """The default text of a property, or its first one; None where there is none, or nothing but space."""
        return next((text for text in self._texts(of) if text.strip()), None)

    def with_texts(self, texts: Mapping[Property, str], *, add: bool = True) -> bytes:
        """The packet with other default texts: the same bytes if it has them already.

        Args:
            texts: what XML can hold, see :func:`plain`.
            add: also put in the properties that it has not.
        """
        edits: list[Edit] = []
        missing: dict[Property, str] = {}
        for of, text in texts.items():
            attributes = [edit for description in self._descriptions for edit in self._attributes(description, of)]
            elements = list(self._elements(of))
            edits += attributes
            for element in elements:
                edits += replaced(self._data, element, of, text)
            if not elements and (add or attributes):
                missing[of] = text
        if missing:
            edits.append(self._put_in(missing))
        if not edits:
            return self.raw
        end = shifted(self._root.end, edits)
        return self._encoded.back(_padded(apply(self._data, edits), end, len(self._data)))

    def _find_rdf(self) -> Element | None:
        if self._root.name == rdf.RDF:
            return self._root
        found = next((child for child in self._root.children if child.name == rdf.RDF), None)
        if found is None and self._root.name != META:
            raise NotXMPError("it is XML of another kind")
        return found

    @property
    def _descriptions(self) -> list[Element]:
        return [] if self._rdf is None else [child for child in self._rdf.children if child.name == rdf.DESCRIPTION]

    def _elements(self, of: Property) -> Iterator[Element]:
        for description in self._descriptions:
            yield from (child for child in description.children if child.name == of.name)

    def _texts(self, of: Property) -> Iterator[str]:
        for description in self._descriptions:
            if of.name in description.attributes:
                yield description.attributes[of.name]
        yield from map(default_text, self._elements(of))

    def _attributes(self, description: Element, of: Property) -> list[Edit]:
        """The edits that take out a property which has been written as an attribute."""
        edits = []
        for attribute in ATTRIBUTE.finditer(self._data, description.start, description.inside):
            prefix, _, local = attribute[1].decode().rpartition(":")
            if prefix and local == of.local and description.prefixes.get(prefix) == of.namespace:
                edits.append(Edit(*attribute.span(), b""))
        return edits

    def _put_in(self, texts: Mapping[Property, str]) -> Edit:
        """Properties put last into the first description, since readers look for things in the first one.

        Where there is no description, or no RDF, they bring it along.
        """
        description = next(iter(self._descriptions), None)
        outer = description or self._rdf or self._root
        prefixes = outer.prefixes if description else {**outer.prefixes, "rdf": RDF_NAMESPACE}
        content = "".join(f"\n   {written(of, text, prefixes)}" for of, text in texts.items())
        declared = "" if outer.prefixes.get("rdf") == RDF_NAMESPACE else f' xmlns:rdf="{RDF_NAMESPACE}"'
        if self._rdf is None:
            content = f'\n  <rdf:Description rdf:about="">{content}\n  </rdf:Description>'
            content = f"\n <rdf:RDF{declared}>{content}\n </rdf:RDF>"
        elif description is None:
            content = f'\n  <rdf:Description rdf:about=""{declared}>{content}\n  </rdf:Description>'
        if outer.is_empty_tag:
            name = NAME.match(self._data, outer.start)
            assert name is not None, "expat wants tags to have names"
            end_tag = f"\n</{name[1].decode()}>"
            return Edit(outer.inside - 2, outer.inside, f">{content}{end_tag}".encode())
        place = outer.inside + len(self._data[outer.inside : outer.close].rstrip(SPACE))
        return Edit(place, place, content.encode())


def _padded(data: bytes, root: int, length: int) -> bytes:
    """Keep a packet at its length, as far as the padding before its end allows: then nothing moves in the file.

    Args:
        data: the packet.
        root: where its root element ends.
        length: that it had.
    """
    end = data.find(END_OF_PACKET, root)
    if end < 0:
        return data
    padding = len(data[root:end]) - len(data[root:end].rstrip(SPACE))
    too_long = len(data) - length
    if too_long < 0:
        return data[:end] + b" " * -too_long + data[end:]
    return data[: end - min(too_long, max(0, padding - 1))] + data[end:]
