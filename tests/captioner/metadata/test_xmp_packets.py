"""XMP packets: the alt text goes in, nothing else changes, and exiv2 reads it."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import picture_files as files
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from captioner.errors import ImageError, OptionError
from captioner.metadata import xmp
from captioner.metadata.xmp import ALT_TEXT, DESCRIPTION, Packet

TEXT = 'Ein Hund & <zwei> "Katzen" — 狗 🐕'
OTHER = "A cat\tsits\non the sofa"
RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
DC = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'
IPTC = 'xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"'


def update(packet: bytes, text: str = TEXT, *, keep_description: bool = True) -> bytes:
    (new,) = xmp.updated([packet], text, "photo.jpg", keep_description=keep_description)
    return new


def alt_text(packet: bytes) -> str | None:
    return Packet(packet, "photo.jpg").text(ALT_TEXT)


def description(packet: bytes) -> str | None:
    return Packet(packet, "photo.jpg").text(DESCRIPTION)


def of(content: str, *, attributes: str = "") -> bytes:
    """A packet with one description."""
    outer = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {RDF}>'
    inner = f'<rdf:Description rdf:about="" {DC} {IPTC}{attributes}>{content}</rdf:Description>'
    return f"{outer}{inner}</rdf:RDF></x:xmpmeta>".encode()


def alternatives(*items: str, kind: str = "Alt", name: str = "Iptc4xmpCore:AltTextAccessibility") -> str:
    return f"<{name}><rdf:{kind}>{''.join(items)}</rdf:{kind}></{name}>"


def item(text: str, language: str | None = "x-default") -> str:
    return f"<rdf:li>{text}</rdf:li>" if language is None else f'<rdf:li xml:lang="{language}">{text}</rdf:li>'


def everything_else(packet: bytes) -> list[object]:
    """What a packet says but for alt text and description, in whatever way it is written."""
    root = ElementTree.parse(io.BytesIO(packet.rstrip(b"\0"))).getroot()

    def told(element: ElementTree.Element) -> object:
        return element.tag, element.attrib, (element.text or "").strip(), [told(child) for child in element]

    rdf = root if root.tag == f"{files.RDF}RDF" else root.find(f"{files.RDF}RDF")
    found: list[object] = []
    for node in [] if rdf is None else rdf:
        found += [pair for pair in node.attrib.items() if pair[0] not in (files.ALT_TEXT, files.DESCRIPTION)]
        found += [told(child) for child in node if child.tag not in (files.ALT_TEXT, files.DESCRIPTION)]
    return [pair for pair in found if pair != (f"{files.RDF}about", "")]


def languages(packet: bytes, name: str = files.ALT_TEXT) -> dict[str | None, str | None]:
    return {found.get(files.LANGUAGE): found.text for found in files.items(packet, name)}


NEW = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="">
   <Iptc4xmpCore:AltTextAccessibility xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"><rdf:Alt>\
<rdf:li xml:lang="x-default">a dog</rdf:li></rdf:Alt></Iptc4xmpCore:AltTextAccessibility>
   <dc:description xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Alt>\
<rdf:li xml:lang="x-default">a dog</rdf:li></rdf:Alt></dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def test_a_new_packet_is_simple() -> None:
    assert [packet.decode() for packet in xmp.updated([], "a dog", "photo.jpg", keep_description=True)] == [NEW]


def test_a_new_packet_has_both_properties() -> None:
    (new,) = xmp.updated([], TEXT, "photo.jpg", keep_description=True)
    assert alt_text(new) == description(new) == TEXT
    assert languages(new, files.ALT_TEXT) == languages(new, files.DESCRIPTION) == {"x-default": TEXT}
    assert files.exiv2_alt_text(new) == TEXT


# How a packet may say what it says; in none of them may anything else be lost.
SHAPES = {
    "of a photo program": files.packet(),
    "without padding": files.packet(0),
    "without a wrapper": of("<dc:format>image/jpeg</dc:format>"),
    "a file of its own": b'<?xml version="1.0" encoding="UTF-8"?>\n' + of("<dc:format>image/jpeg</dc:format>"),
    "empty": b"",
    "nothing but space": b" \n\0\0",
    "no RDF": b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>',
    "no RDF, two tags": b'<x:xmpmeta xmlns:x="adobe:ns:meta/"> </x:xmpmeta>',
    "no description": f"<rdf:RDF {RDF}/>".encode(),
    "another prefix, no description": b'<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></r:RDF>',
    "an empty description": f'<rdf:RDF {RDF}><rdf:Description rdf:about=""/></rdf:RDF>'.encode(),
    "attributes only": of("", attributes=' dc:format="image/jpeg" dc:source=\'a > "b" dc:description="no"\''),
    "no prefix for RDF": b"""<RDF xmlns="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
        <Description xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#" r:about=""><format
        xmlns="http://purl.org/dc/elements/1.1/">image/jpeg</format></Description></RDF>""",
    "prefixes of other things": f"""<rdf:RDF {RDF}><rdf:Description rdf:about="" xmlns:dc="urn:other"
        xmlns:Iptc4xmpCore="urn:other" xmlns:d="http://purl.org/dc/elements/1.1/" dc:description="mine" d:format="JPEG">
        <d:description><rdf:Alt>{item("old")}</rdf:Alt></d:description></rdf:Description></rdf:RDF>""".encode(),
    "the alt text is there": of(alternatives(item("old"))),
    "no default": of(alternatives(item("alt", "de"))),
    "the default is second": of(alternatives(item("alt", "de"), "\n ", item("old"), item("vieux", "fr"))),
    "two defaults": of(alternatives(item("old"), item("older", "X-Default"), item("alt", "de"))),
    "an item without a language": of(alternatives(item("old", None), item("alt", "de"))),
    "an empty container": of("<Iptc4xmpCore:AltTextAccessibility><rdf:Alt/></Iptc4xmpCore:AltTextAccessibility>"),
    "an empty bag": of("<Iptc4xmpCore:AltTextAccessibility><rdf:Bag/></Iptc4xmpCore:AltTextAccessibility>"),
    "an empty property": of("<Iptc4xmpCore:AltTextAccessibility/>"),
    "a sequence": of(alternatives(item("old", None), item("alt", "de"), kind="Seq")),
    "a bag without a default": of(alternatives(item("alt", "de"), kind="Bag")),
    "a plain text": of("<Iptc4xmpCore:AltTextAccessibility>old</Iptc4xmpCore:AltTextAccessibility>"),
    "a text in German": of(
        '<Iptc4xmpCore:AltTextAccessibility xml:lang="de">alt &amp; <![CDATA[<grau>]]>'
        "</Iptc4xmpCore:AltTextAccessibility>"
    ),
    "an attribute": of("", attributes=' Iptc4xmpCore:AltTextAccessibility="old"'),
    "attribute and element": of(alternatives(item("old")), attributes="\n Iptc4xmpCore:AltTextAccessibility='older'"),
    "a text with qualifiers": of(
        alternatives(
            '<rdf:li xml:lang="x-default" rdf:parseType="Resource"><rdf:value>old</rdf:value>'
            "<dc:source>s</dc:source></rdf:li>",
            item("alt", "de"),
        )
    ),
    "a structure": of(
        '<Iptc4xmpCore:AltTextAccessibility rdf:parseType="Resource"><rdf:value>old</rdf:value>'
        "</Iptc4xmpCore:AltTextAccessibility>"
    ),
    "the same names deeper down": of(
        f'<dc:source rdf:parseType="Resource">{alternatives(item("inner"), name="dc:description")}</dc:source>'
    ),
    "in the second description": f"""<rdf:RDF {RDF}><rdf:Description rdf:about=""/><rdf:Description rdf:about=""
        {IPTC}>{alternatives(item("old"), item("alt", "de"))}</rdf:Description></rdf:RDF>""".encode(),
    "ended by null characters": of(alternatives(item("old"))) + b"\0\0",
}
REBINDING = "prefixes of other things"  # exiv2 would take "dc" for that other thing in all files that it reads later


@pytest.mark.parametrize("packet", SHAPES.values(), ids=SHAPES)
def test_whatever_the_packet_says_else_it_says_still(packet: bytes) -> None:
    new = update(packet, keep_description=False)
    assert alt_text(new) == description(new) == TEXT
    assert files.default_of(new, files.ALT_TEXT) == TEXT
    if packet.strip(b" \n\0"):
        assert everything_else(new) == everything_else(packet)
    assert next(iter(languages(new))) == "x-default", "the default comes first"


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != REBINDING])
def test_exiv2_reads_every_shape(shape: str) -> None:
    packet = update(SHAPES[shape])
    photo = files.with_segment(files.encode("JPEG"), files.XMP_SEGMENT + packet)
    assert files.exiv2_alt_text(photo) == files.exiv2_default(photo, files.DESCRIPTION) == TEXT


@pytest.mark.parametrize("packet", SHAPES.values(), ids=SHAPES)
def test_the_same_text_again_changes_nothing(packet: bytes) -> None:
    new = update(packet)
    assert update(new) == new
    assert alt_text(update(new, OTHER)) == OTHER
    assert languages(update(update(new, OTHER))) == languages(new)


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ("no default", {"de": "alt"}),
        ("the default is second", {"de": "alt", "fr": "vieux"}),
        ("two defaults", {"de": "alt"}),
        ("an item without a language", {"de": "alt"}),
        ("a sequence", {"de": "alt"}),
        ("a bag without a default", {"de": "alt"}),
        ("a text in German", {"de": "alt & <grau>"}),
        ("a text with qualifiers", {"de": "alt"}),
        ("in the second description", {"de": "alt"}),
    ],
)
def test_other_languages_are_kept(shape: str, kept: dict[str, str]) -> None:
    assert languages(update(SHAPES[shape])) == {"x-default": TEXT, **kept}


def test_bytes_outside_the_property_stay() -> None:
    before, after = (
        "<dc:format  >image/jpeg</dc:format >\t<!-- < -->",
        "<?pi?><dc:source a:b = 'c>' xmlns:a=\"urn:a\"/>\n",
    )
    old = of(before + alternatives(item("old"), " ", item("alt", "de")) + after)
    text = 'Ein Hund &amp; &lt;zwei&gt; "Katzen" — 狗 🐕'
    added = "\n   " + alternatives(item(text), name="dc:description") + "\n"
    assert update(old) == of(before + alternatives(item(text), " ", item("alt", "de")) + after.rstrip() + added)


def test_a_text_gets_its_language_even_if_it_is_the_same() -> None:
    for old in (item("a dog", None), item("a dog").replace(">a dog<", "><rdf:value>a dog</rdf:value><")):
        new = update(of(alternatives(old, item("alt", "de"))), "a dog")
        assert languages(new) == {"x-default": "a dog", "de": "alt"}


def test_without_adding_only_what_is_there_changes() -> None:
    texts = {ALT_TEXT: TEXT, DESCRIPTION: TEXT}
    neither = files.packet()
    assert Packet(neither, "photo.jpg").with_texts(texts, add=False) == neither
    for old in (of("", attributes=' dc:description="old"'), of("<dc:description>old</dc:description>")):
        new = Packet(old, "photo.jpg").with_texts(texts, add=False)
        assert (description(new), alt_text(new)) == (TEXT, None)


@pytest.mark.parametrize(
    ("packet", "found"),
    [
        (of(alternatives(item("old", "de"), item("older", "fr"))), "old"),
        (of(alternatives(item("old", "de"), item("default", "X-DEFAULT"))), "default"),
        (of(alternatives(item(" ")), attributes=' Iptc4xmpCore:AltTextAccessibility="there"'), "there"),
        (of(alternatives(item(" \n"))), None),
        (of(alternatives(name="dc:description")), None),
        (files.packet(), None),
        (b"", None),
        (SHAPES["a text with qualifiers"], "old"),
        (SHAPES["a structure"], "old"),
        (SHAPES["a text in German"], "alt & <grau>"),
        (SHAPES["the same names deeper down"], None),
    ],
)
def test_reading_takes_the_default_or_the_first(packet: bytes, found: str | None) -> None:
    assert alt_text(packet) == found


FOREIGN = of(alternatives(item("by the photographer"), name="dc:description"))


def test_a_description_of_somebody_else_stays() -> None:
    new = update(FOREIGN)
    assert alt_text(new) == TEXT
    assert description(new) == "by the photographer"
    assert description(update(new, OTHER)) == "by the photographer"


def test_a_description_of_somebody_else_is_replaced_when_asked() -> None:
    assert description(update(FOREIGN, keep_description=False)) == TEXT


def test_a_description_that_was_the_alt_text_follows_it() -> None:
    new = update(update(files.packet()), OTHER)
    assert alt_text(new) == description(new) == OTHER


def test_a_blank_description_is_nobodys() -> None:
    blank = of(alternatives(item("      "), name="dc:description"))
    assert description(update(blank)) == TEXT


def test_a_packet_keeps_its_length_as_long_as_it_has_padding() -> None:
    old = files.packet(2000)
    new = update(old)
    assert len(new) == len(old)
    assert len(update(new, "short")) == len(old)
    assert len(update(new, "long " * 500)) > len(old)
    tight = update(files.packet(0))
    assert tight.endswith(b'</x:xmpmeta>\n<?xpacket end="w"?>')
    assert len(update(tight, "short")) == len(tight)


ENCODINGS = {
    "utf-8": "", "utf-8 with a mark": "\ufeff", "utf-16-le": "\ufeff", "utf-16-be": "\ufeff", "utf-32-le": "\ufeff",
    "utf-32-be": "\ufeff", "utf-16-le without": "", "utf-16-be without": "", "utf-32-le without": "",
    "utf-32-be without": "",
}  # fmt: skip


@pytest.mark.parametrize("kind", ENCODINGS)
def test_a_packet_keeps_its_encoding(kind: str) -> None:
    encoding, mark = kind.split(maxsplit=1)[0], ENCODINGS[kind]
    old = (mark + files.packet().decode()).encode(encoding)
    new = update(old)
    text = new.decode(encoding)
    assert text.startswith(mark + "<?xpacket")
    assert alt_text(new) == TEXT
    assert text.removeprefix(mark).encode() == update(files.packet())


BOMB = b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>' + of(
    "<dc:format>&c;</dc:format>"
)
LATIN = '<?xml version="1.0" encoding="ISO-8859-1"?>'
REFUSED = {
    "an entity bomb": BOMB,
    "an outer entity": b'<!DOCTYPE a SYSTEM "file:///etc/passwd">' + of(""),
    "an outer entity inside": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' + of("&b;"),
    "an entity of its own": of("&eacute;"),
    "cut off": files.packet()[:-100].rsplit(b"</rdf:RDF>", 1)[0],
    "two roots": of("") + of(""),
    "text behind it": of("") + b"more",
    "another encoding": LATIN.encode() + of("<dc:format>\xe9</dc:format>"),
    "not UTF-8": of("<dc:format>é</dc:format>").replace(b"\xc3\xa9", b"\xe9"),
    "half of UTF-16": "\ufeff".encode("utf-16-le") + files.packet().decode().encode("utf-16-le") + b"\0",
    "an unknown prefix": of("<unknown:a/>"),
    "XML of another kind": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "RDF too deep": b"<a><b>" + of("") + b"</b></a>",
    "a control character": of("<dc:format>\x01</dc:format>"),
    "no XML": b"alt text",
    "null characters first": b"\0\0" + of(""),
}


@pytest.mark.parametrize("packet", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused(packet: bytes) -> None:
    with pytest.raises(ImageError, match=r"^the XMP metadata of photo\.jpg cannot be read: .+; repair or") as caught:
        update(packet)
    assert caught.value.code == "metadata_broken"
    with pytest.raises(ImageError):
        alt_text(packet)


def test_a_packet_of_unreasonable_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xmp, "MAX_PACKET", 1000)
    with pytest.raises(ImageError, match="larger than 1,000 bytes") as caught:
        update(files.packet(2000))
    assert caught.value.code == "metadata_too_large"


def test_nesting_without_end_does_no_harm() -> None:
    deep = "<dc:a>" * 100_000 + "</dc:a>" * 100_000
    assert alt_text(update(of(deep))) == TEXT
    for inside in (deep, "<dc:a/>" * 100_000):
        with pytest.raises(ImageError, match="more than 10,000 elements"):
            update(of(f"<dc:description>{inside}</dc:description>"))


@pytest.mark.parametrize("text", ["", " \n", "\0\x01", "\ud800"])
def test_a_text_without_anything_to_read_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="the alt text is empty"):
        update(b"", text)


def test_what_xml_cannot_hold_is_left_out() -> None:
    assert xmp.plain("a\0b\x1bc\x7fd\ud800e\ufffef\uffffg\t\r\n\x85\u2028🐕") == "abcdefg\t\r\n\x85\u2028🐕"


TEXTS = st.text(st.characters(), min_size=1).filter(lambda text: xmp.FORBIDDEN.sub("", text).strip())


@given(text=TEXTS, packet=st.sampled_from(list(SHAPES.values())))
@example(text="]]>", packet=b"")
@example(text="a\r\nb\rc\td", packet=b"")
@example(text="&amp;<!--", packet=b"")
def test_any_text_comes_back(text: str, packet: bytes) -> None:
    new = update(packet, text, keep_description=False)
    assert alt_text(new) == description(new) == xmp.plain(text)
    assert files.default_of(new, files.ALT_TEXT) == xmp.plain(text)


@given(text=TEXTS)
@example(text="a\r\nb\rc\td")
@example(text='", lang="de" x')
def test_exiv2_reads_any_text(text: str) -> None:
    (new,) = xmp.updated([], text, "photo.jpg", keep_description=True)
    assert files.exiv2_alt_text(new) == xmp.plain(text)


@given(
    packet=st.sampled_from(list(SHAPES.values())),
    changes=st.lists(
        st.tuples(st.integers(0, 5000), st.integers(0, 20), st.binary(max_size=8)), min_size=1, max_size=4
    ),
)
def test_a_damaged_packet_is_refused_or_keeps_what_it_says(
    packet: bytes, changes: list[tuple[int, int, bytes]]
) -> None:
    for place, length, new in changes:
        at = place % (len(packet) + 1)
        packet = packet[:at] + new + packet[at + length :]
    try:
        new = update(packet)
    except ImageError:
        return
    assert alt_text(new) == TEXT
    if packet.strip(b" \t\r\n\0"):
        assert everything_else(new) == everything_else(packet)


PIECES = """<rdf:li>|<rdf:li xml:lang="de">|<rdf:li xml:lang="x-default">|</rdf:li>|<rdf:Alt>|</rdf:Alt>|<rdf:Bag>
|</rdf:Bag>|<rdf:value>|</rdf:value>|<rdf:Alt/>|<rdf:li/>|text| |&lt;|<!-- > -->|<![CDATA[>]]>|<dc:description>
|</dc:description>|<dc:a b='>'/>""".split("|")


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=14), outside=st.booleans())
def test_a_property_of_any_form_gets_its_text(pieces: list[str], outside: bool) -> None:
    content = "".join(pieces)
    packet = of(content if outside else f"<dc:description>{content}</dc:description>")
    try:
        new = update(packet, keep_description=False)
    except ImageError:
        return
    assert alt_text(new) == TEXT
    assert description(new) == TEXT
    assert everything_else(new) == everything_else(packet)
    assert update(new, keep_description=False) == new
