"""What an operator may set, checked once when the service starts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from captioner.config import Config, require
from captioner.errors import OptionError

PREFIX = "CAPTIONER_"


@dataclass(frozen=True)
class ServiceConfig(Config):
    """Models and limits; the variable of ``max_bytes`` is ``CAPTIONER_MAX_BYTES``, and so on.

    Attributes:
        models: names of bundled models or model directories, comma-separated in the environment.
            The first is the default; none at all means every bundled model.
        max_bytes: largest request body, in bytes.
        max_pixels: largest picture, in pixels, judged before it is decoded.
        max_images: most pictures in one request.
        max_beam_size: widest beam, and most captions, that a request may ask for.
        max_tokens: longest caption that a request may ask for, in tokens.
        torch_threads: cores that one worker's network may use; 0 leaves torch's own choice.

    Raises:
        OptionError: a limit is not a positive whole number.
    """

    models: tuple[str, ...] = ()
    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_images: int = 32
    max_beam_size: int = 20
    max_tokens: int = 200
    torch_threads: int = 0

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_images", "max_beam_size", "max_tokens"):
            value = getattr(self, name)
            require(value > 0, f"{PREFIX}{name.upper()} must be a positive whole number, not {value}")
        require(self.torch_threads >= 0, f"{PREFIX}TORCH_THREADS must be 0 or more, not {self.torch_threads}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the ``CAPTIONER_*`` variables; those unset or empty keep their defaults.

        Raises:
            OptionError: a value is not of its kind; the message names the variable.
        """
        values: dict[str, int | tuple[str, ...]] = {}
        for field in dataclasses.fields(cls):
            variable = PREFIX + field.name.upper()
            text = environment.get(variable, "").strip()
            if not text:
                continue
            if field.name == "models":
                values["models"] = tuple(name.strip() for name in text.split(",") if name.strip())
                continue
            try:
                values[field.name] = int(text)
            except ValueError:
                raise OptionError(f"{variable} must be a whole number, not {text!r}") from None
        return cls(**values)  # type: ignore[arg-type]
