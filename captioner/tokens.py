"""Symbols: tokenisers turn text into tokens and back, a vocabulary turns tokens into numbers and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from captioner.errors import ModelError, OptionError

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNK)

# What the coco-caption standard drops after Penn Treebank tokenisation, brackets in both their spellings.
_MARKS = ("''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";")
_BRACKETS = ("(", ")", "[", "]", "{", "}", "-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-")
PUNCTUATION = frozenset((*_MARKS, *_BRACKETS))


class Tokenizer(Protocol):
    """Text to tokens and back."""

    def tokenize(self, text: str) -> list[str]:
        """Split ``text`` into tokens."""
        ...

    def join(self, tokens: Sequence[str]) -> str:
        """Readable text from ``tokens``."""
        ...


class WordTokenizer:
    """Lower-cased Penn Treebank words without punctuation: the convention of the coco-caption metrics."""

    _CLITIC = re.compile(r" (?=(?:n't|'(?:s|m|d|ll|re|ve))(?: |$))")

    def tokenize(self, text: str) -> list[str]:
        """``"A dog's ball."`` → ``["a", "dog", "'s", "ball"]``."""
        from nltk.tokenize import NLTKWordTokenizer  # a slow import that captioning itself does not need

        words = NLTKWordTokenizer().tokenize(text.lower())
        return [word for word in words if word not in PUNCTUATION]

    def join(self, tokens: Sequence[str]) -> str:
        """``["a", "dog", "'s", "ball"]`` → ``"a dog's ball"``."""
        return self._CLITIC.sub("", " ".join(tokens))


class SymbolTokenizer:
    """Symbols separated by white space, such as phones: ``"DH AH . D AO G"``."""

    def tokenize(self, text: str) -> list[str]:
        """Split at white space."""
        return text.split()

    def join(self, tokens: Sequence[str]) -> str:
        """Join with single spaces."""
        return " ".join(tokens)


class CharacterTokenizer:
    """One token per character."""

    def tokenize(self, text: str) -> list[str]:
        """Split into characters."""
        return list(text)

    def join(self, tokens: Sequence[str]) -> str:
        """Concatenate."""
        return "".join(tokens)


TOKENIZERS: dict[str, type[Tokenizer]] = {
    "words": WordTokenizer,
    "symbols": SymbolTokenizer,
    "characters": CharacterTokenizer,
}


def make_tokenizer(name: str) -> Tokenizer:
    """The tokeniser called ``name``.

    Raises:
        OptionError: there is none of that name.
    """
    if name not in TOKENIZERS:
        raise OptionError(f"unknown tokenizer {name!r}; choose one of {', '.join(TOKENIZERS)}")
    return TOKENIZERS[name]()


class Vocabulary:
    """Tokens by number. The four special tokens come first and are distinct.

    Args:
        tokens: every token, special ones included and first.

    Raises:
        ModelError: special tokens are not first, or a token occurs twice.
    """

    pad, bos, eos, unk = range(len(SPECIAL_TOKENS))

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        self._numbers = {token: number for number, token in enumerate(self.tokens)}
        if self.tokens[: len(SPECIAL_TOKENS)] != SPECIAL_TOKENS:
            raise ModelError(f"a vocabulary must start with {', '.join(SPECIAL_TOKENS)}")
        if len(self._numbers) != len(self.tokens):
            twice = next(token for token, count in Counter(self.tokens).items() if count > 1)
            raise ModelError(f"the vocabulary has {twice!r} twice")

    @classmethod
    def build(cls, sequences: Iterable[Sequence[str]], *, min_count: int = 1) -> Vocabulary:
        """The tokens seen at least ``min_count`` times, most frequent first, ties in alphabetical order."""
        counts = Counter(token for sequence in sequences for token in sequence)
        kept = [token for token, count in counts.items() if count >= min_count and token not in SPECIAL_TOKENS]
        return cls([*SPECIAL_TOKENS, *sorted(kept, key=lambda token: (-counts[token], token))])

    def encode(self, tokens: Sequence[str]) -> list[int]:
        """Numbers of ``tokens``; unknown ones become ``unk``. No begin or end is added."""
        return [self._numbers.get(token, self.unk) for token in tokens]

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Tokens of ``numbers``."""
        return [self.tokens[number] for number in numbers]

    def __len__(self) -> int:
        """V, special tokens included."""
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        """Whether ``token`` has a number of its own."""
        return token in self._numbers

    def __eq__(self, other: object) -> bool:
        """Same tokens in the same order."""
        return isinstance(other, Vocabulary) and self.tokens == other.tokens

    def __hash__(self) -> int:
        """Agrees with equality."""
        return hash(self.tokens)
