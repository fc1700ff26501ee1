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
from training.augmentation import Augmentation

RECIPES = Path(__file__).parent / "recipes"
OBJECTIVES = ("likelihood", "reward")
OF_LIKELIHOOD = ("attention_penalty", "scheduled_sampling", "distillation")
OF_REWARD = ("samples", "sample_length", "likelihood_share")
KINDS: dict[str, tuple[tuple[type, ...], str]] = {  # by annotation: what may stand there, and its name in TOML
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a text"),
    "tuple[str, ...]": ((tuple,), "a list"),
}


@dataclass(frozen=True)
class Stage(Config):
    """A part of the training with its own optimiser and schedule.

    Attributes:
        epochs: passes over all captions, at most.
        objective: ``likelihood`` of the training captions, or ``reward``: self-critical training, see
            :mod:`training.scst`.
        train_encoder: False learns the decoder alone on cached features; True learns the encoder too.
        frozen: the encoder's modules up to this one stay as they are; only where the encoder learns. Empty: all learn.
        views: augmented versions of each picture, made once and kept behind the frozen modules; 0 makes new ones in
            each epoch, or where all of the encoder is frozen, none.
        images_per_batch, captions_per_image: a batch has their product of captions. An epoch has every caption once;
            with a reward, every image once, and these are the captions of the likelihood's share.
        decoder_rate, encoder_rate: peak learning rates.
        second_moment_decay: AdamW's beta 2.
        warmup: share of the steps over which the rates rise; after it they fall to zero along a cosine.
        flip: mirror half of the pictures; without views, a frozen encoder's grids are mirrored in their place.
        crop: prepare a random part of each picture, with at least this share of its area, in place of the whole.
        colour: vary brightness, contrast and saturation by up to this share.
        attention_penalty: weight of the doubly stochastic term, sum over positions of (1 - sum over steps of the
            attention)^2 (Xu et al. 2015, equation 14). It keeps the attention of a young decoder from collapsing,
            and a sentinel from being looked at.
        scheduled_sampling: the share of previous tokens that are the model's own, reached evenly at the stage's end.
        distillation: share of the targets that the mean of the ``teachers`` predicts, see :mod:`training.distillation`.
        samples, sample_length: captions drawn of each image for the reward, and their length at most, ends included.
        likelihood_share: of the likelihood in the loss beside the reward.
        accumulate: parts in which a process computes its share of a batch, one after the other, to need the memory of
            one part; it takes half as much time again, and changes nothing else, see :mod:`training.accumulation`.
        evaluations: times an epoch that the dev split is captioned.
    """

    epochs: int
    objective: str = "likelihood"
    train_encoder: bool = False
    frozen: str = ""
    views: int = 0
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
    scheduled_sampling: float = 0.0
    distillation: float = 0.0
    samples: int = 5
    sample_length: int = 20
    likelihood_share: float = 0.0
    accumulate: int = 1
    evaluations: int = 1

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
        require(self.objective in OBJECTIVES, f"Stage.objective must be one of {', '.join(OBJECTIVES)}")
        require(self.views >= 0, "Stage.views must not be negative")
        require(self.accumulate >= 1, "Stage.accumulate must be at least 1")
        require(self.evaluations >= 1, "Stage.evaluations must be at least 1")
        for name in ("scheduled_sampling", "distillation", "likelihood_share"):
            require(0 <= getattr(self, name) <= 1, f"Stage.{name} must lie in [0, 1]")
        require(self.sample_length >= 1, "Stage.sample_length must be at least 1")
        require(self.samples >= 2, "Stage.samples must be at least 2: each is measured by the others")
        if self.train_encoder:
            require(self.encoder_rate > 0, "Stage.encoder_rate must be positive with train_encoder = true")
            require(
                bool(self.frozen) == bool(self.views),
                "Stage.frozen and Stage.views belong together where the encoder learns: the views are kept as the "
                "frozen modules leave them",
            )
        else:
            for name in ("encoder_rate", "frozen"):
                require(not getattr(self, name), f"Stage.{name} has a meaning only with train_encoder = true")
            if not self.views:
                for name, nothing in (("crop", 1), ("colour", 0)):
                    require(
                        getattr(self, name) == nothing,
                        f"Stage.{name} has a meaning only with views, or where the encoder learns",
                    )
        meaningless = OF_REWARD if self.objective == "likelihood" else OF_LIKELIHOOD
        for each in fields(self):
            if each.name in meaningless:
                require(
                    getattr(self, each.name) == each.default,
                    f'Stage.{each.name} has no meaning with objective = "{self.objective}"',
                )

    @property
    def augmentation(self) -> Augmentation:
        """How pictures change."""
        return Augmentation(flip=self.flip, crop=self.crop, colour=self.colour)


@dataclass(frozen=True)
class Recipe(Config):
    """Everything that decides a model, data and pretrained weights apart.

    Attributes:
        name: the model's name.
        description: one sentence for the model's card.
        seed: of initialisation, order, augmentation and dropout; a stage's views do not depend on it, so that models
            that differ in their seed share them.
        tokenizer: a key of :data:`captioner.tokens.TOKENIZERS`.
        min_count: rarer tokens of the training captions become unknown.
        max_tokens: longer training captions are cut, and then teach no end.
        encoder: backbone, see :data:`captioner.encoder.BACKBONES`.
        grid_node: see :class:`captioner.config.ModelConfig`, like the other architecture fields.
        encoder_weights: ``imagenet``, a local file, a model directory whose encoder is taken, or empty for random ones.
        start: a model directory whose weights, decoder and all, the first stage begins with, in place of
            ``encoder_weights``.
        teachers: model directories, for the stages with ``distillation``.
        label_smoothing: share of the target spread over the vocabulary (Szegedy et al. 2016).
        weight_decay: AdamW's; without it that is Adam.
        gradient_clip: largest norm of the gradient.
        average_decay: the model that is evaluated and kept is a moving average with this decay; 0 keeps the last.
        patience: a stage ends after so many evaluations without a better dev CIDEr; an epoch has one, or as many as
            its stage says.
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
    start: str = ""
    teachers: tuple[str, ...] = ()
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
        for name in self.teachers:
            require(isinstance(name, str) and bool(name), f"teachers must be model directories, not {name!r}")
        distilled = any(stage.distillation for stage in self.stages)
        require(distilled or not self.teachers, "teachers have a meaning only with a stage with distillation")
        require(not distilled or bool(self.teachers), "a stage with distillation needs teachers")

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
            set_field(values, override)
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


def set_field(values: dict[str, Any], override: str) -> None:
    """Set one field of a nested recipe in place; ``override`` reads as :func:`load_recipe` has it.

    Raises:
        OptionError: there is no such place.
    """
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
