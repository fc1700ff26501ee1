"""What a model is, as frozen dataclasses with an exact JSON round trip.

Nothing here computes: these are the words in which a checkpoint describes itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from captioner.errors import ModelError, OptionError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
READERS = {"none": 1, "bilstm": 1, "pyramid": 4}  # by name: how many positions of the grid a reader makes one
CHOICES = {
    "reader": tuple(READERS),
    "cell": ("lstm", "gru", "rnn"),
    "attention": ("additive", "dot", "general", "none"),
    "attend": ("before", "after"),
    "image_input": ("start", "steps", "both"),
}


class Config:
    """Mixin: strict conversion from and to plain JSON values."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values.

        Raises:
            ModelError: a key is unknown or a required one is missing.
            OptionError: a value is out of range.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ModelError(
                f"{cls.__name__} has no field {', '.join(map(repr, unknown))}; it has {', '.join(fields)}",
                code="model_mismatch",
            )
        # JSON has no tuples; dataclasses compare by value, so lists must not slip in.
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        try:
            return cls(**plain)
        except TypeError as error:
            raise ModelError(f"{cls.__name__} is incomplete: {error}", code="model_mismatch") from error

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values, in order."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def is_whole(value: object) -> bool:
    """Whether ``value`` is a whole number; JSON's true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def require(condition: bool, message: str) -> None:
    """Raise :class:`OptionError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise OptionError(message)


@dataclass(frozen=True)
class ImageConfig(Config):
    """How a picture becomes the network's input.

    Attributes:
        height, width: input size in pixels.
        fit: ``stretch`` keeps the whole picture and ignores its aspect ratio; ``crop`` keeps the ratio
            and drops what lies outside the central area.
        mean, std: per-channel normalisation of RGB values in [0, 1].
    """

    height: int = 224
    width: int = 224
    fit: str = "stretch"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            require(is_whole(value) and value > 0, f"ImageConfig.{name} must be a positive whole number")
        require(self.fit in ("stretch", "crop"), f"ImageConfig.fit must be stretch or crop, not {self.fit!r}")
        require(len(self.mean) == len(self.std) == 3, "ImageConfig: mean and std need three values each")
        require(min(self.std) > 0, "ImageConfig.std must be positive")


@dataclass(frozen=True)
class ModelConfig(Config):
    """The network's architecture.

    Attributes:
        encoder: a torchvision backbone by name, see :data:`captioner.encoder.BACKBONES`.
        grid_node: the backbone's module that yields the grid; empty for the backbone's default. Several, joined by
            ``+``, make one grid of the finest one's positions with the features of all.
        grid_rows, grid_columns, grid_features: the grid that the encoder yields for the model's image size.
        vocabulary_size: V, special tokens included.
        value_size, attention_size, embedding_size, hidden_size: widths of the grid as the decoder reads it, of the
            space in which an additive attention compares, the token embedding and each layer of cells.
        output_size: width of the vector that the output layer reads; 0 for the embedding's, as a tied one needs.
        reader: how the decoder reads the grid: ``none`` projects each position by itself; ``bilstm`` runs a
            bidirectional LSTM over them, row by row; ``pyramid`` runs three and makes four neighbours one.
        cell: of the decoder: ``lstm``, ``gru`` or ``rnn`` (Elman's).
        layers: of cells, one upon the other; the last is what attends and speaks.
        attention: how positions are scored: ``additive`` (Bahdanau et al. 2015), ``general`` or ``dot`` (Luong et al.
            2015); or ``none`` (Vinyals et al. 2015).
        attend: ``before`` the cells, with the state of the step before, whose context they read (Xu et al. 2015); or
            ``after`` them, with the state of this step, on the way to the output layer (Luong et al. 2015, section 3).
        input_feeding: feed what the output layer read to the next step's cells (Luong et al. 2015, section 3.3).
        sentinel: one more place to attend to, what the decoder knows without the image (Lu et al. 2017).
        image_input: where the mean of the grid enters: as the state at the ``start``, beside the token at all
            ``steps``, or ``both``.
        gated_context: scale the context vector by a learned gate (Show, Attend and Tell, section 4.2.1).
        tied_output: the output layer shares the embedding's matrix (Press and Wolf 2017).
        dropout: probability, on the grid as read (after each layer of a pyramid), on the embedding, between layers of
            cells and before the output layer.
    """

    vocabulary_size: int
    encoder: str = "mobilenet_v2"
    grid_node: str = ""
    grid_rows: int = 7
    grid_columns: int = 7
    grid_features: int = 1280
    value_size: int = 512
    attention_size: int = 512
    embedding_size: int = 512
    hidden_size: int = 512
    output_size: int = 0
    reader: str = "none"
    cell: str = "lstm"
    layers: int = 1
    attention: str = "additive"
    attend: str = "before"
    input_feeding: bool = False
    sentinel: bool = False
    image_input: str = "start"
    gated_context: bool = True
    tied_output: bool = True
    dropout: float = 0.5

    def __post_init__(self) -> None:
        for name in _SIZES:
            value = getattr(self, name)
            require(is_whole(value) and value > 0, f"ModelConfig.{name} must be a positive whole number")
        require(0 <= self.dropout < 1, "ModelConfig.dropout must lie in [0, 1)")
        require(
            is_whole(self.output_size) and self.output_size >= 0,
            "ModelConfig.output_size must be a whole number, not below 0",
        )
        require(
            not self.tied_output or self.output_size in (0, self.embedding_size),
            f"ModelConfig.output_size is {self.output_size}, but a tied output layer reads the embedding's "
            f"{self.embedding_size}: set tied_output to false or output_size to 0",
        )
        for name in _FLAGS:
            require(isinstance(getattr(self, name), bool), f"ModelConfig.{name} must be true or false")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            require(value in choices, f"ModelConfig.{name} must be one of {', '.join(choices)}, not {value!r}")
        require(
            self.grid_rows * self.grid_columns % READERS[self.reader] == 0,
            f"ModelConfig.reader: a {self.reader} makes {READERS[self.reader]} positions one, and a grid of "
            f"{self.grid_rows} x {self.grid_columns} is no multiple of that: choose another grid_node or picture size",
        )
        require(
            self.reader == "none" or self.value_size % 2 == 0,
            f"ModelConfig.value_size must be even for a {self.reader}: each of two directions gives half of it",
        )
        attends, after = self.attention != "none", self.attend == "after"
        for name in ("gated_context", "input_feeding", "sentinel"):
            require(
                attends or not getattr(self, name),
                f"ModelConfig.{name} has a meaning only with an attention: set it to false or choose an attention",
            )
        require(
            attends or not after,
            'ModelConfig.attend has a meaning only with an attention: leave it "before" or choose an attention',
        )
        for name in ("input_feeding", "sentinel"):
            require(after or not getattr(self, name), f'ModelConfig.{name} needs attend = "after"')
        require(
            self.attention != "dot" or self.value_size == self.hidden_size,
            f"ModelConfig.attention: a dot product needs equal widths, but value_size is {self.value_size} and "
            f'hidden_size {self.hidden_size}: make them equal or choose "general"',
        )
        require(
            not self.sentinel or (self.cell == "lstm" and self.value_size == self.hidden_size),
            "ModelConfig.sentinel reads an LSTM's memory cell in place of a value of the grid: it needs "
            'cell = "lstm" and value_size equal to hidden_size',
        )


_SIZES = (
    "vocabulary_size",
    "value_size",
    "layers",
    "embedding_size",
    "hidden_size",
    "attention_size",
    "grid_rows",
    "grid_columns",
    "grid_features",
)
_FLAGS = ("input_feeding", "sentinel", "gated_context", "tied_output")
