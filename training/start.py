"""The model that a run begins with: what it says of itself, its first weights, and what its recipe will need later."""

from __future__ import annotations

from pathlib import Path

import torch

from captioner.checkpoint import ModelInfo, is_model, load_model, read_info
from captioner.config import ModelConfig
from captioner.encoder import GridEncoder, grid_shape
from captioner.errors import DataError, WeightsError
from captioner.model import CaptionModel
from captioner.tokens import Vocabulary
from training import distributed
from training.batching import Corpus, make_corpus
from training.datasets import Example, read_dataset
from training.distillation import check_teacher
from training.expectation import expected_ngrams
from training.recipe import Recipe
from training.replicas import replicate


def prepare(recipe: Recipe, data: Path) -> tuple[dict[str, list[Example]], Corpus, ModelInfo]:
    """The dataset, its training split as the recipe reads it, and what the model will say of itself.

    Raises:
        DataError: the data is incomplete or too little.
        OptionError: there is no such architecture.
        ModelError: a model that the recipe names is broken.
    """
    dataset = read_dataset(data, required=("train", "dev"))
    corpus = make_corpus(dataset["train"], recipe)
    if recipe.decoding.rank == "cider":
        expected_ngrams(corpus.captions, corpus.vocabulary)  # refused here, not after all stages
    return dataset, corpus, describe(recipe, corpus.vocabulary, dataset)


def first_model(recipe: Recipe, info: ModelInfo, *, begun: bool) -> CaptionModel:
    """A new model, where it is to learn; the same in all processes, which all call this.

    Args:
        recipe: what it starts from.
        info: what it is.
        begun: whether its weights will be those of a run that is resumed, which needs no others.

    Raises:
        DataError, WeightsError, ModelError, OptionError: see :func:`load_start` and :func:`check_stages`.
    """
    torch.manual_seed(recipe.seed)
    model = CaptionModel(info.model)
    if not begun:
        distributed.from_main(lambda: load_start(model, recipe, info.vocabulary))
        distributed.from_main(lambda: check_stages(model, recipe, info.vocabulary))
    replicate(model)
    model.to(distributed.device())
    model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return model


def describe(recipe: Recipe, vocabulary: Vocabulary, dataset: dict[str, list[Example]]) -> ModelInfo:
    """What the model will say of itself.

    Raises:
        OptionError: there is no such architecture.
        ModelError: a model that the recipe names is broken.
    """
    rows, columns, features = grid_shape(recipe.encoder, recipe.grid_node, recipe.image.height, recipe.image.width)
    shared = {name: value for name, value in recipe.to_dict().items() if name in ModelConfig.__dataclass_fields__}
    model = ModelConfig(
        vocabulary_size=len(vocabulary), grid_rows=rows, grid_columns=columns, grid_features=features, **shared
    )
    told = recipe.replace(
        encoder_weights=tell(recipe.encoder_weights),
        start=tell(recipe.start),
        teachers=tuple(tell(directory) for directory in recipe.teachers),
    )
    return ModelInfo(
        name=recipe.name,
        model=model,
        vocabulary=vocabulary,
        tokenizer=recipe.tokenizer,
        image=recipe.image,
        # What CIDEr to expect is learnt last, of the finished model.
        decoding=recipe.decoding.replace(rank="score") if recipe.decoding.rank == "cider" else recipe.decoding,
        description=recipe.description,
        provenance={
            "recipe": told.to_dict(),
            "images": {split: len(examples) for split, examples in dataset.items()},
            "captions": {split: sum(len(one.captions) for one in examples) for split, examples in dataset.items()},
            "torch": torch.__version__,
        },
    )


def tell(source: str) -> str:
    """How a model's card names weights: a path of the machine that trains says nothing to others.

    Returns:
        A model's own name, since the folders of all runs end alike; of a file, its name; else ``source``.
    """
    return read_info(source).name if source and is_model(source) else Path(source).name


def load_start(model: CaptionModel, recipe: Recipe, vocabulary: Vocabulary) -> None:
    """Give a new model the weights that the recipe starts from.

    Raises:
        DataError: those of ``start`` are of another architecture or vocabulary.
        WeightsError: those for the encoder are of another one, or cannot be had.
        ModelError: a model directory is broken.
    """
    if recipe.start:
        begun, info = load_model(recipe.start)
        if info.vocabulary != vocabulary:
            raise DataError(f"{recipe.start} has another vocabulary than this data gives with this recipe")
        ours, theirs = model.config.to_dict(), info.model.replace(dropout=model.config.dropout).to_dict()
        others = [f"{name} is {theirs[name]!r}, not {ours[name]!r}" for name in ours if theirs[name] != ours[name]]
        if others:
            raise DataError(f"{recipe.start} has another architecture than the recipe: its {', its '.join(others)}")
        model.load_state_dict(begun.state_dict())
    elif recipe.encoder_weights and is_model(recipe.encoder_weights):
        take_encoder(model.encoder, recipe.encoder_weights)
    elif recipe.encoder_weights:
        model.encoder.load_weights(recipe.encoder_weights)


def take_encoder(encoder: GridEncoder, directory: str) -> None:
    """Give an encoder the weights of another model's, which may reach further.

    Raises:
        WeightsError: that one is another backbone, or ends earlier.
        ModelError: the model is broken.
    """
    other = load_model(directory)[0].encoder
    mine, theirs = encoder.state_dict(), other.state_dict()
    if other.name != encoder.name or not set(mine) <= set(theirs):
        raise WeightsError(
            f"{directory} has the encoder {other.name} up to {other.last}, and the recipe needs {encoder.name} up to "
            f"{encoder.last}: choose another model, encoder or grid_node"
        )
    encoder.load_state_dict({name: theirs[name] for name in mine})


@torch.no_grad()
def check_stages(model: CaptionModel, recipe: Recipe, vocabulary: Vocabulary) -> None:
    """Find out before the first stage what a later one would stumble over, perhaps after hours.

    Raises:
        OptionError: a stage's ``frozen`` module is none, or lies behind a part of the grid.
        DataError: a teacher has another vocabulary.
        ModelError: a teacher is not there.
    """
    for stage in recipe.stages:
        if stage.frozen:
            model.encoder.begin(torch.zeros(1, 3, recipe.image.height, recipe.image.width), stage.frozen)
    for directory in recipe.teachers:
        check_teacher(directory, vocabulary)
