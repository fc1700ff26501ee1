"""The XML of an XMP packet: where its properties stand, byte by byte, so that one can be changed and no other.

A parser that builds a tree and writes it anew would lose prefixes, comments and the order of things. This one only
tells places. It refuses document types, and with them every entity that a file could define: an XMP packet has none
(XMP specification part 1, 7.1: the RDF subset of XML), and those who mean harm do.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from xml.parsers import expat

RDF_NAMESPACE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
RDF = f"{RDF_NAMESPACE} RDF"
DESCRIPTION = f"{RDF_NAMESPACE} Description"

# A tag that expat has found in order: to its end, whatever its attributes hold.
TAG = re.compile(rb"""<(?:[^"'>]++|"[^"]*+"|'[^']*+')*+>""")
SPACE = b" \t\r\n"
MOST_ELEMENTS = 10_000  # that are kept: an alt text in every language takes some hundred


class NotXMPError(Exception):
    """The text of it ends the sentence "it cannot be read: …"."""


@dataclass(slots=True)
class Element:
    """An element and its place: its start tag goes from ``start`` to ``inside``, its end tag from ``close`` to ``end``.

    Names are a namespace and a local name with a space between them. ``prefixes`` are those that can be used in it.
    An empty tag (``<a/>``) has its ``inside``, ``close`` and ``end`` in one place.
    """

    name: str
    attributes: dict[str, str]
    prefixes: dict[str, str]
    start: int
    inside: int
    close: int = -1
    end: int = -1
    children: list[Element] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The characters that stand directly in it."""
        return "".join(self.pieces)

    @property
    def is_empty_tag(self) -> bool:
        """It is written as one tag."""
        return self.end == self.inside


def parse(data: bytes, wanted: Collection[str]) -> Element:
    """Find the root of a document, RDF in it, the descriptions in that, and of these the wanted properties.

    Args:
        data: UTF-8 without a byte order mark.
        wanted: names of properties; what the others hold is passed over.

    Returns:
        The root with those as its ``children``; the wanted properties with all that is in them.

    Raises:
        NotXMPError: this is no XML, or XML with a document type or an encoding that XMP does not know.
    """
    reader = _Reader(data, wanted)
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        raise NotXMPError(f"{expat.ErrorString(error.code)} in line {error.lineno}") from error
    assert reader.root is not None, "expat wants a root"
    return reader.root


class _Reader:
    def __init__(self, data: bytes, wanted: Collection[str]) -> None:
        self.parser = parser = expat.ParserCreate("utf-8", " ")
        self.root: Element | None = None
        self._data, self._wanted = data, wanted
        self._open: list[Element] = []
        self._elements = 0
        self._passed_over = 0  # how deep in something that does not matter
        self._declared: dict[str, str] = {}
        parser.StartNamespaceDeclHandler = self._declare
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._document_type

    def _declare(self, prefix: str | None, namespace: str | None) -> None:
        self._declared[prefix or ""] = namespace or ""

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        declared, self._declared = self._declared, {}
        if self._passed_over or not self._matters(name):
            self._passed_over += 1
            return
        self._elements += 1
        if self._elements > MOST_ELEMENTS:
            raise NotXMPError(f"it has more than {MOST_ELEMENTS:,} elements in the properties that are looked for")
        outer = self._open[-1].prefixes if self._open else {}
        start = self.parser.CurrentByteIndex
        tag = TAG.match(self._data, start)
        assert tag is not None, "expat wants whole tags"
        element = Element(name, attributes, {**outer, **declared} if declared else outer, start, tag.end())
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def _matters(self, name: str) -> bool:
        names = [element.name for element in self._open[:3]]
        if not names:
            return True
        if RDF not in names[:2]:
            return len(names) == 1 and name == RDF
        below = len(self._open) - names.index(RDF)  # 1: a child of RDF
        return name == DESCRIPTION if below == 1 else below > 2 or name in self._wanted

    def _end(self, _: str) -> None:
        if self._passed_over:
            self._passed_over -= 1
            return
        element = self._open.pop()
        if self._data[element.inside - 2 : element.inside] == b"/>":
            element.close = element.end = element.inside
        else:
            element.close = self.parser.CurrentByteIndex
            element.end = self._data.index(b">", element.close) + 1

    def _characters(self, text: str) -> None:
        if self._open and not self._passed_over:
            self._open[-1].pieces.append(text)

    def _declaration(self, _: str, encoding: str | None, __: int) -> None:
        if encoding is not None and not encoding.lower().startswith("utf"):
            raise NotXMPError(f"it says that its encoding is {encoding}, and XMP is in UTF-8, UTF-16 or UTF-32")

    def _document_type(self, *_: object) -> None:
        raise NotXMPError("it has a document type, which XMP has not")
