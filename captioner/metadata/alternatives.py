"""A text in several languages, as XMP has it: reading its default, and changing that and nothing else.

Language alternatives (XMP specification part 1, 8.2.2.4) are an ``rdf:Alt`` of items with a language each, the first of
which, ``x-default``, is for whoever has no other wish. What programs have written instead is taken for what they
meant: an item without a language and a text without items are the default, a bag or a sequence is an ``rdf:Alt``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from captioner.metadata.edits import Edit
from captioner.metadata.rdf import RDF_NAMESPACE, SPACE, Element

LANGUAGE = "http://www.w3.org/XML/1998/namespace lang"
DEFAULT = "x-default"
CONTAINERS = {f"{RDF_NAMESPACE} {kind}": kind for kind in ("Alt", "Bag", "Seq")}
ITEM = f"{RDF_NAMESPACE} li"
VALUE = f"{RDF_NAMESPACE} value"
TAG_NAME = re.compile(rb"</?((?:[^\s/>:]+:)?)([^\s/>]+)")


class Property(NamedTuple):
    """A property of XMP and the prefix that it usually has."""

    namespace: str
    prefix: str
    local: str

    @property
    def name(self) -> str:
        """As :mod:`captioner.metadata.rdf` gives names."""
        return f"{self.namespace} {self.local}"


def default_text(element: Element) -> str:
    """The text of a property for whoever has no wish for a language; the first one if none is the default."""
    items = _items(element)
    chosen = next(filter(_is_default, items), items[0] if items else element)
    value = next((below for below in _descendants(chosen) if below.name == VALUE), chosen)  # one that has qualifiers
    return value.text


def written(of: Property, text: str, prefixes: Mapping[str, str], more: str = "") -> str:
    """A property with a default text, to be put where the prefixes can be used; ``more`` are further items."""
    needed = {of.prefix: of.namespace, "rdf": RDF_NAMESPACE}
    declared = "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in needed.items() if prefixes.get(prefix) != uri)
    name = f"{of.prefix}:{of.local}"
    return f"<{name}{declared}><rdf:Alt>{_item('rdf:', DEFAULT, escaped(text))}{more}</rdf:Alt></{name}>"


def escaped(text: str) -> str:
    """Text as XML. A carriage return would be read as the end of a line, so it gets a number."""
    return escape(text, {"\r": "&#13;"})


def replaced(data: bytes, element: Element, of: Property, text: str) -> list[Edit]:
    """The edits that give a property another default text: none where it has it already, and nothing else."""
    container = _container(element)
    if container is None:
        return [Edit(element.start, element.end, _rewritten(data, element, of, text).encode())]
    prefix = _tag_name(data, container.start)[1].decode()
    item = _item(prefix, DEFAULT, escaped(text)).encode()
    items = _items(element)
    defaults = [item for item in items if _is_default(item)]
    edits = []
    if container.is_empty_tag:
        edits.append(Edit(container.inside - 2, container.inside, b">" + item + f"</{prefix}Alt>".encode()))
    elif items and items[0] in defaults:
        first = defaults.pop(0)
        if first.text != text or first.children or LANGUAGE not in first.attributes:
            edits.append(Edit(first.start, first.end, item))
    else:
        edits.append(Edit(container.inside, container.inside, item))
    edits += [Edit(_with_space_before(data, other), other.end, b"") for other in defaults]
    if CONTAINERS[container.name] != "Alt":
        places = [container.start] if container.is_empty_tag else [container.start, container.close]
        edits += [Edit(*_tag_name(data, place).span(2), b"Alt") for place in places]
    return edits


def _container(element: Element) -> Element | None:
    return next((child for child in element.children if child.name in CONTAINERS), None)


def _items(element: Element) -> list[Element]:
    container = _container(element)
    return [child for child in container.children if child.name == ITEM] if container else []


def _is_default(item: Element) -> bool:
    return item.attributes.get(LANGUAGE, DEFAULT).lower() == DEFAULT


def _descendants(element: Element) -> Iterator[Element]:
    waiting = [element]
    while waiting:  # and not by recursion, since files may be nested as deep as they like
        yield (element := waiting.pop())
        waiting += reversed(element.children)


def _item(prefix: str, language: str, content: str) -> str:
    return f"<{prefix}li xml:lang={quoteattr(language)}>{content}</{prefix}li>"


def _rewritten(data: bytes, element: Element, of: Property, text: str) -> str:
    """A property without items anew. If its text has another language, that is kept."""
    more = ""
    language = element.attributes.get(LANGUAGE, DEFAULT)
    if language.lower() != DEFAULT and not element.children and element.text.strip():
        more = _item("rdf:", language, data[element.inside : element.close].decode())
    return written(of, text, element.prefixes, more)


def _tag_name(data: bytes, place: int) -> re.Match[bytes]:
    name = TAG_NAME.match(data, place)
    assert name is not None, "expat wants tags to have names"
    return name


def _with_space_before(data: bytes, element: Element) -> int:
    start = element.start
    while data[start - 1] in SPACE:
        start -= 1
    return start
