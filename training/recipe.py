"""What makes a model: a TOML file, read into frozen dataclasses and stored with the model that it made."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from captioner.config import Config, ImageConfig, require
from captioner.decoding import DecodingOptions
from captioner.errors import ModelError, OptionError
from captioner.tokens import TOKENIZERS

RECIPES = Path(__file__).parent / "recipes"
KINDS: dict[str, tuple[tuple[type, ...], str]] = {  # by annotation: what may stand there, and its name in TOML
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a text"),
}


@dataclass(frozen=True)
class Stage(Config):
    """A part of the training with its own optimiser and schedule.

    Attributes:
        epochs: passes over all captions, at most.
        train_encoder: False learns the decoder alone on cached features; True learns everything from pixels.
        images_per_batch, captions_per_image: a batch has their product of captions.
        decoder_rate, encoder_rate: peak learning rates.
        second_moment_decay: AdamW's beta 2.
        warmup: share of the steps over which the rates rise; after it they fall to zero along a cosine.
        flip: mirror half of the pictures (or their grids).
        crop: prepare a random part of each picture, with at least this share of its area, in place of the whole; only
            where the encoder learns.
        colour: vary brightness, contrast and saturation by up to this share; only where the encoder learns.
        attention_penalty: weight of the doubly stochastic term, sum over positions of (1 - sum over steps of the
            attention)^2 (Xu et al. 2015, equation 14). It keeps the attention of a young decoder from collapsing.
    """

    epochs: int
    train_encoder: bool = False
    images_per_batch: int = 128
    captions_per_image: int = 1
    decoder_rate: float = 8e-4
    encoder_rate: float = 0.0
    second_moment_decay: float = 0.999
    warmup: float = 0.1
    flip: bool = True
    crop: float = 1.0
    colour: float = 0.0
    attention_penalty: float = 0.0

    def __post_init__(self) -> None:
        _check_kinds(self)
        require(self.epochs >= 1, "Stage.epochs must be at least 1")
        require(self.images_per_batch >= 1, "Stage.images_per_batch must be at least 1")
        require(self.captions_per_image >= 1, "Stage.captions_per_image must be at least 1")
        require(self.decoder_rate > 0, "Stage.decoder_rate must be positive")
        require(0 <= self.second_moment_decay < 1, "Stage.second_moment_decay must lie in [0, 1)")
        require(0 <= self.warmup < 1, "Stage.warmup must lie in [0, 1)")
        require(0 < self.crop <= 1, "Stage.crop must lie in (0, 1]")
        require(0 <= self.colour < 1, "Stage.colour must lie in [0, 1)")
        require(self.attention_penalty >= 0, "Stage.attention_penalty must not be negative")
        if self.train_encoder:
            require(self.encoder_rate > 0, "Stage.encoder_rate must be positive with train_encoder = true")
        else:
            require(self.encoder_rate == 0, "Stage.encoder_rate has a meaning only with train_encoder = true")
            require(self.crop == 1, "Stage.crop has a meaning only with train_encoder = true")
            require(self.colour == 0, "Stage.colour has a meaning only with train_encoder = true")


@dataclass(frozen=True)
class Recipe(Config):
    """Everything that decides a model, data and pretrained weights apart.

    Attributes:
        name: the model's name.
        description: one sentence for the model's card.
        seed: of initialisation, order, augmentation and dropout.
        tokenizer: a key of :data:`captioner.tokens.TOKENIZERS`.
        min_count: rarer tokens of the training captions become unknown.
        max_tokens: longer training captions are cut, and then teach no end.
        encoder: backbone, see :data:`captioner.encoder.BACKBONES`.
        grid_node: see :class:`captioner.config.ModelConfig`, like the other architecture fields.
        encoder_weights: ``imagenet``, a local file, or empty for random ones.
        label_smoothing: share of the target spread over the vocabulary (Szegedy et al. 2016).
        weight_decay: AdamW's; without it that is Adam.
        gradient_clip: largest norm of the gradient.
        average_decay: the model that is evaluated and kept is a moving average with this decay; 0 keeps the last.
        patience: a stage ends after so many epochs without a better dev CIDEr.
    """

    name: str
    stages: tuple[Stage, ...]
    description: str = ""
    seed: int = 1
    tokenizer: str = "words"
    min_count: int = 5
    max_tokens: int = 24
    encoder: str = "mobilenet_v2"
    grid_node: str = ""
    encoder_weights: str = "imagenet"
    value_size: int = 512
    attention_size: int = 512
    embedding_size: int = 512
    hidden_size: int = 512
    output_size: int = 0
    reader: str = "projection"
    input_feeding: bool = False
    gated_context: bool = True
    tied_output: bool = True
    dropout: float = 0.5
    label_smoothing: float = 0.1
    weight_decay: float = 0.01
    gradient_clip: float = 5.0
    average_decay: float = 0.995
    patience: int = 3
    image: ImageConfig = field(default_factory=ImageConfig)
    decoding: DecodingOptions = field(default_factory=DecodingOptions)

    def __post_init__(self) -> None:
        _check_kinds(self)
        require(bool(self.stages), "a recipe needs at least one [[stages]] table")
        require(self.seed >= 0, "seed must not be negative")
        require(self.tokenizer in TOKENIZERS, f"tokenizer must be one of {', '.join(TOKENIZERS)}")
        require(self.min_count >= 1, "min_count must be at least 1")
        require(self.max_tokens >= 1, "max_tokens must be at least 1")
        require(0 <= self.label_smoothing < 1, "label_smoothing must lie in [0, 1)")
        require(self.weight_decay >= 0, "weight_decay must not be negative")
        require(self.gradient_clip > 0, "gradient_clip must be positive")
        require(0 <= self.average_decay < 1, "average_decay must lie in [0, 1)")
        require(self.patience >= 1, "patience must be at least 1")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values, nested tables included; errors as in :meth:`Config.from_dict`."""
        nested = {"stages": (), "image": {}, "decoding": {}} | dict(values)
        stages = nested["stages"]
        require(
            isinstance(stages, list | tuple) and all(isinstance(stage, Mapping) for stage in stages),
            "stages must be [[stages]] tables",
        )
        for name in ("image", "decoding"):
            require(isinstance(nested[name], Mapping), f"{name} must be a table")
        nested["stages"] = tuple(Stage.from_dict(stage) for stage in stages)
        nested["image"] = ImageConfig.from_dict(nested["image"])
        nested["decoding"] = DecodingOptions.from_dict(nested["decoding"])
        return super().from_dict(nested)


def load_recipe(name_or_file: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, a shipped one by name or a TOML file, with single fields overridden.

    Args:
        name_or_file: such as ``words`` or ``mine.toml``.
        overrides: ``field=value`` with the value as TOML writes it; dots lead into tables and lists, as in
            ``stages.0.epochs=2``. A bare word counts as a string.

    Raises:
        OptionError: there is no such recipe, or a field or value is impossible.
    """
    path = Path(name_or_file)
    if not path.is_file():
        path = RECIPES / f"{name_or_file}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.toml")))
        raise OptionError(f"no recipe {name_or_file!r}: give a TOML file or one of {shipped}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        for override in overrides:
            _override(values, override)
        return Recipe.from_dict(values)
    except (ModelError, ValueError) as error:  # what is no TOML, no UTF-8 and no option is each a ValueError
        raise OptionError(f"recipe {path}: {error}") from error


def _check_kinds(config: Stage | Recipe) -> None:
    """Refuse what TOML can write and the field cannot hold, such as 2.5 epochs."""
    for each in fields(config):
        if each.type in KINDS:
            types, name = KINDS[each.type]
            value = getattr(config, each.name)
            # To Python, a bool is an int; to the author of a recipe it is not.
            fits = isinstance(value, types) and isinstance(value, bool) == (each.type == "bool")
            require(fits, f"{type(config).__name__}.{each.name} must be {name}, not {value!r}")


def _override(values: dict[str, Any], override: str) -> None:
    """Set one field of a nested recipe in place."""
    path, equals, text = override.partition("=")
    if not equals:
        raise OptionError(f"an override reads field=value, not {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = path.split(".")
    target: Any = values
    try:
        for name in parents:
            target = target[int(name)] if isinstance(target, list) else target.setdefault(name, {})
        target[int(last) if isinstance(target, list) else last] = value
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise OptionError(f"the recipe has no place {path!r}") from error
