"""The models of a run, and all that their captions depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from captioner.batch.texts import Shape
from captioner.captioner import Captioner
from captioner.checkpoint import resolve
from captioner.config import require
from captioner.decoding import DecodingOptions
from captioner.errors import ModelError
from captioner.loading import AUTO, load

LEARNT = ("*.json", "*.safetensors")  # the files that make a model what it is
DIGITS = 12  # of a digest, where people are to read it


@dataclass(frozen=True)
class Wanted:
    """Models and how they are to speak.

    Attributes:
        names: bundled ones or directories.
        decoding: what differs from each model's own options.
        shape: of the texts.
        engine, device, precision, threads: see :func:`captioner.loading.load`.
    """

    names: Sequence[str] = ("words",)
    decoding: Mapping[str, Any] | None = None
    shape: Shape = field(default_factory=Shape)
    engine: str = AUTO
    device: str | None = None
    precision: str = "fp32"
    threads: int | None = None

    def load(self, *, alt_text: bool = False) -> list[tuple[Captioner, DecodingOptions]]:
        """The models, each with the options that it decodes with.

        Args:
            alt_text: there is one caption a picture, for people to read.

        Raises:
            CaptionerError: there is no such model, it cannot run, or it does not go with the rest.
        """
        changes = dict(self.decoding or {})
        if alt_text:
            require(len(self.names) == 1, "a picture has one alt text: give one --model")
            require(changes.get("n_best", 1) == 1, "a picture has one alt text: leave --n-best out")
        models = []
        for name in self.names:
            model = load(name, engine=self.engine, device=self.device, precision=self.precision, threads=self.threads)
            self._check(model, alt_text=alt_text)
            models.append((model, model.options(**changes)))
        called = [model.name for model, _ in models]
        require(len({*called}) == len(called), f"rows name models, and two of these have one name: {', '.join(called)}")
        return models

    def _check(self, model: Captioner, *, alt_text: bool) -> None:
        if model.info.tokenizer == "symbols":
            require(
                not self.shape.sentence or model.word_reader is not None,
                f"--sentence: model {model.name} says symbols, and python -m training.words has not taught it words",
            )
            require(
                not alt_text or self.shape.sentence,
                f"alt text is for people to read, and model {model.name} says symbols: give another --model",
            )

    def settings(self, models: Sequence[tuple[Captioner, DecodingOptions]]) -> dict[str, Any]:
        """What the captions of these models depend on, as JSON values by what the user calls them.

        The number of threads and the size of batches are not among them: they may change what a computer rounds off,
        and are what one changes when memory or cores turn out to be fewer.
        """
        options = [own.to_dict() for _, own in models]
        return {
            "--model": [f"{own.name} ({digest(name)})" for name, (own, _) in zip(self.names, models, strict=True)],
            "--engine": _once([own.engine.name.partition(",")[0] for own, _ in models]),
            **{f"--{name.replace('_', '-')}": _once([own[name] for own in options]) for name in options[0]},
            "--prefix": self.shape.prefix,
            "--suffix": self.shape.suffix,
            "--max-length": self.shape.max_length,  # of the text, not of the decoder's sequence
            "--sentence": self.shape.sentence,
        }


def digest(model: str) -> str:
    """A hash of all that a model has learnt.

    Raises:
        ModelError: a file cannot be read.
    """
    found = hashlib.sha256()
    directory = resolve(model)
    try:
        for path in sorted(path for pattern in LEARNT for path in directory.glob(pattern)):
            found.update(hashlib.sha256(path.read_bytes()).digest())
    except OSError as error:
        raise ModelError(f"cannot read the model {model}: {error}") from error
    return found.hexdigest()[:DIGITS]


def _once(values: Sequence[Any]) -> Any:
    """One value where all are the same."""
    return values[0] if all(value == values[0] for value in values) else list(values)
