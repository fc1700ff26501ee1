"""What captioning gives: captions of a picture, or why there are none."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from captioner.engines import FloatArray
from captioner.errors import CaptionerError
from captioner.images import ImageSource


@dataclass(frozen=True)
class Caption:
    """One caption of one picture.

    Attributes:
        text: readable, as the model's tokeniser joins it; words come in lower case without a full stop.
        tokens: T tokens.
        log_probability: natural logarithm of the whole caption's probability, its end included.
        score: ``log_probability`` normalised by length; captions of one picture are ranked by it, unless the option
            ``rank`` says otherwise.
        token_scores: natural logarithm of each token's probability.
        attention: (T, rows, columns) weights, each token's summing to one, or with a sentinel to less: where the model
            looked.
        model: the model's name.
        words: what phones read like, see :mod:`captioner.reading`; None where the text is words already, or the model
            brings no lexicon.
    """

    text: str
    tokens: tuple[str, ...]
    log_probability: float
    score: float
    token_scores: tuple[float, ...]
    attention: FloatArray = field(repr=False)
    model: str
    words: str | None = None

    @property
    def sentence(self) -> str:
        """The words with a capital first letter and a full stop; empty stays empty."""
        words = self.text if self.words is None else self.words
        return f"{words[0].upper()}{words[1:]}." if words else ""

    def to_row(self) -> dict[str, Any]:
        """``{"text", "tokens", "score"}``, as rows and replies carry it, and ``"words"`` where phones are read."""
        row: dict[str, Any] = {"text": self.text, "tokens": list(self.tokens), "score": round(self.score, 4)}
        return row if self.words is None else row | {"words": self.words}


@dataclass(frozen=True)
class Result:
    """What became of one picture of a stream: captions, best first, or an error.

    Attributes:
        image: the picture as it was given.
        model: the model's name.
        captions: empty exactly when there is an error.
        error: why there is no caption.
    """

    image: ImageSource
    model: str
    captions: tuple[Caption, ...] = ()
    error: CaptionerError | None = None

    def to_row(self) -> dict[str, Any]:
        """``{"image", "model", "captions"}`` or ``{"image", "error", "code"}``; the image only where it has a path."""
        row: dict[str, Any] = {"image": os.fspath(self.image)} if isinstance(self.image, str | os.PathLike) else {}
        if self.error is not None:
            return row | {"error": str(self.error), "code": self.error.code}
        return row | {"model": self.model, "captions": [caption.to_row() for caption in self.captions]}
