"""What is written of a caption: something before it, something behind it, and no more than fits."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from captioner.config import require
from captioner.results import Caption

STOP = "."  # of a sentence
LOOSE = " ,;:-"  # what would hang at the end of a text that was cut


@dataclass(frozen=True)
class Shape:
    """How the text of a caption is written.

    Attributes:
        prefix, suffix: stand before and behind every caption, as they are.
        max_length: characters of the whole, prefix and suffix among them; None for no limit. What is longer loses words
            from its end; a first word that does not fit is cut in two.
        sentence: a capital first letter and a full stop; of phones, their words.

    Raises:
        OptionError: nothing of a caption would be left, or a prefix or suffix is more than a line.
    """

    prefix: str = ""
    suffix: str = ""
    max_length: int | None = None
    sentence: bool = False

    def __post_init__(self) -> None:
        for name, text in (("prefix", self.prefix), ("suffix", self.suffix)):
            breaks = any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text)
            require(not breaks, f"the {name} must be on one line: leave line breaks and tabs out")
            require(is_text(text), f"the {name} is not text in this locale's encoding")
        around = len(self.prefix) + len(self.suffix)
        require(
            self.max_length is None or self.max_length > around,
            f"max_length is {self.max_length}, and prefix and suffix alone take {around}: raise it",
        )

    def __call__(self, text: str) -> str:
        """The text as it is written."""
        if self.max_length is not None:
            room = self.max_length - len(self.prefix) - len(self.suffix)
            if self.sentence and len(text) > room > len(STOP):
                text = cut(text.removesuffix(STOP), room - len(STOP)) + STOP
            text = cut(text, room)
        return f"{self.prefix}{text}{self.suffix}"

    def row(self, caption: Caption) -> dict[str, Any]:
        """A caption as rows carry it, its text as it is written."""
        return caption.to_row() | {"text": self(caption.sentence if self.sentence else caption.text)}


def cut(text: str, most: int) -> str:
    """As many whole words from the start of a text as fit into ``most`` characters, at least one."""
    if len(text) <= most:
        return text
    end = text.rfind(" ", 0, most + 1)  # a space right behind what fits ends a word, too
    whole = text[:end].rstrip(LOOSE) if end > 0 else ""
    return whole or text[:most]


def is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8, which half characters and bytes of another encoding cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
