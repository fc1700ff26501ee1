from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from captioner.encoder import BACKBONES
from captioner.errors import OptionError
from captioner.model import skeleton
from captioner.phones import PHONES
from captioner.tokens import Vocabulary
from training.augmentation import Augmentation
from training.recipe import RECIPES, Recipe, Stage, load_recipe
from training.start import describe

SMALL = 'name = "small"\n[[stages]]\nepochs = 3\n'


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe.encoder in BACKBONES
    for source in (recipe.encoder_weights, recipe.start, *recipe.teachers):
        known = source in ("", "imagenet") or source.startswith("runs/")
        assert known, "a shipped recipe must not name a file of some machine"


def test_the_first_of_the_words_recipes_is_shipped() -> None:
    frozen, *learning = load_recipe("words-base").stages
    assert not frozen.train_encoder
    assert learning
    assert all(stage.train_encoder for stage in learning)


def test_image2speech_2018_has_the_published_architecture() -> None:
    recipe = load_recipe("image2speech-2018")
    info = describe(recipe, Vocabulary.build([PHONES]), {})
    assert (info.image.height, info.image.width, info.tokenizer) == (224, 224, "symbols")
    assert (info.model.grid_rows, info.model.grid_columns, info.model.grid_features) == (14, 14, 512)
    assert (info.decoding.beam_size, info.decoding.length_penalty) == (20, 0)
    assert min(recipe.max_tokens, info.decoding.max_length) >= 100
    assert not any(stage.train_encoder for stage in recipe.stages)
    shapes = {name: tuple(tensor.shape) for name, tensor in skeleton(info.model).state_dict().items()}
    layers = [shapes[f"reader.layers.{layer}.weight_ih_l0_reverse"] for layer in range(3)]
    assert layers == [(4 * 64, 512), (4 * 64, 2 * 128), (4 * 64, 2 * 128)]  # four gates of 64 units, each direction
    assert shapes["attention.key.weight"] == shapes["attention.query.weight"] == (128, 128)
    assert shapes["cells.0.weight_hh"] == (4 * 128, 128)
    assert shapes["cells.0.weight_ih"] == (4 * 128, 128 + 1024)  # the embedding, and what the softmax read last
    assert shapes["output.weight"] == (len(info.vocabulary), 1024)


def test_a_file_gives_its_values_and_defaults_for_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALL.replace("[[", "min_count = 2\n[image]\nheight = 64\n[decoding]\nbeam_size = 7\n[["))
    recipe = load_recipe(str(path))
    assert (recipe.name, recipe.min_count, recipe.hidden_size) == ("small", 2, Recipe.hidden_size)
    assert (recipe.image.height, recipe.image.width, recipe.decoding.beam_size) == (64, 224, 7)
    assert recipe.stages == (Stage(epochs=3),)
    with pytest.raises(FrozenInstanceError):
        recipe.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["words-base", "toy"])
def test_json_round_trip(name: str, toy_recipe: Recipe) -> None:
    recipe = toy_recipe if name == "toy" else load_recipe(name)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("seed=7", "seed", 7),
        ("dropout=0.25", "dropout", 0.25),
        ("dropout=0", "dropout", 0),
        ("gated_context=false", "gated_context", False),
        ("reader=pyramid", "reader", "pyramid"),
        ("layers=2", "layers", 2),
        ("start=runs/first/model", "start", "runs/first/model"),
        ("stages.0.views=4", "stages.0.views", 4),
        ("stages.0.evaluations=3", "stages.0.evaluations", 3),
        ("stages.0.accumulate=4", "stages.0.accumulate", 4),
        ("stages.0.scheduled_sampling=0.25", "stages.0.scheduled_sampling", 0.25),
        ("input_feeding=true", "input_feeding", True),
        ("encoder=resnet18", "encoder", "resnet18"),
        ('encoder="resnet18"', "encoder", "resnet18"),
        ("encoder_weights=/some where/w=1.pth", "encoder_weights", "/some where/w=1.pth"),
        ("encoder_weights=", "encoder_weights", ""),
        ("decoding.beam_size=5", "decoding.beam_size", 5),
        ("image.mean=[0.5, 0.5, 0.5]", "image.mean", (0.5, 0.5, 0.5)),
        ("stages.0.epochs=9", "stages.0.epochs", 9),
    ],
)
def test_overrides(small: Path, override: str, where: str, value: object) -> None:
    found: object = load_recipe(str(small), [override])
    for name in where.split("."):
        found = found[int(name)] if isinstance(found, tuple) else getattr(found, name)
    assert found == value


def test_the_last_override_counts(small: Path) -> None:
    assert load_recipe(str(small), ["seed=7", "seed=8"]).seed == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "an override reads field=value, not 'seed'"),
        ("sede=1", r"Recipe has no field 'sede'; it has name, stages.*seed"),
        ("stages.0.epoch=1", "Stage has no field 'epoch'"),
        ("decoding.beam=1", "DecodingOptions has no field 'beam'"),
        ("stages.1.epochs=1", "no place 'stages.1.epochs'"),
        ("stages.first.epochs=1", "no place"),
        ("name.first=1", "no place 'name.first'"),
        ("stages=3", r"stages must be \[\[stages\]\] tables"),
        ("stages=[3]", r"stages must be \[\[stages\]\] tables"),
        ("stages=[]", r"at least one \[\[stages\]\]"),
        ("image=3", "image must be a table"),
        ("decoding=words", "decoding must be a table"),
        ("seed=-1", "seed must not be negative"),
        ("seed=1.5", "Recipe.seed must be a whole number, not 1.5"),
        ("seed=true", "Recipe.seed must be a whole number, not True"),
        ("input_feeding=1", "Recipe.input_feeding must be true or false, not 1"),
        ("output_size=1.5", "Recipe.output_size must be a whole number, not 1.5"),
        ("gated_context=1", "Recipe.gated_context must be true or false, not 1"),
        ("dropout=much", "Recipe.dropout must be a number, not 'much'"),
        ("name=5", "Recipe.name must be a text, not 5"),
        ("tokenizer=letters", "tokenizer must be one of words, symbols, characters"),
        ("min_count=0", "min_count"),
        ("max_tokens=0", "max_tokens"),
        ("label_smoothing=1", "label_smoothing"),
        ("weight_decay=-1", "weight_decay"),
        ("gradient_clip=0", "gradient_clip"),
        ("gradient_clip=nan", "gradient_clip"),
        ("average_decay=1", "average_decay"),
        ("patience=0", "patience"),
        ("stages.0.epochs=0", "Stage.epochs"),
        ("stages.0.epochs=2.5", "Stage.epochs must be a whole number"),
        ("stages.0.images_per_batch=0", "Stage.images_per_batch"),
        ("stages.0.attention_penalty=-1", "Stage.attention_penalty"),
        ("stages.0.second_moment_decay=1", "Stage.second_moment_decay"),
        ("stages.0.captions_per_image=0", "Stage.captions_per_image"),
        ("stages.0.decoder_rate=0", "Stage.decoder_rate"),
        ("stages.0.warmup=1", "Stage.warmup"),
        ("stages.0.crop=0", "Stage.crop"),
        ("stages.0.colour=1", "Stage.colour"),
        ("stages.0.crop=0.9", "Stage.crop has a meaning only with views, or where the encoder learns"),
        ("stages.0.colour=0.1", "Stage.colour has a meaning only with views, or where the encoder learns"),
        ("stages.0.encoder_rate=1e-4", "Stage.encoder_rate has a meaning only with train_encoder"),
        ("stages.0.train_encoder=true", "Stage.encoder_rate must be positive with train_encoder"),
        ("stages.0.frozen=features.3", "Stage.frozen has a meaning only with train_encoder"),
        ("stages.0.frozen=3", "Stage.frozen must be a text, not 3"),
        ("stages.0.views=-1", "Stage.views must not be negative"),
        ("stages.0.views=1.5", "Stage.views must be a whole number"),
        ("stages.0.evaluations=0", "Stage.evaluations must be at least 1"),
        ("stages.0.accumulate=0", "Stage.accumulate must be at least 1"),
        ("stages.0.accumulate=1.5", "Stage.accumulate must be a whole number"),
        ("stages.0.objective=cider", "Stage.objective must be one of likelihood, reward"),
        ("stages.0.scheduled_sampling=1.1", r"Stage.scheduled_sampling must lie in \[0, 1\]"),
        ("stages.0.scheduled_sampling=nan", r"Stage.scheduled_sampling must lie in \[0, 1\]"),
        ("stages.0.distillation=-0.1", r"Stage.distillation must lie in \[0, 1\]"),
        ("stages.0.likelihood_share=2", r"Stage.likelihood_share must lie in \[0, 1\]"),
        ("stages.0.samples=1", "Stage.samples must be at least 2: each is measured by the others"),
        ("stages.0.sample_length=0", "Stage.sample_length must be at least 1"),
        ("stages.0.samples=6", 'Stage.samples has no meaning with objective = "likelihood"'),
        ("stages.0.sample_length=9", 'Stage.sample_length has no meaning with objective = "likelihood"'),
        ("stages.0.likelihood_share=0.5", 'Stage.likelihood_share has no meaning with objective = "likelihood"'),
        ("stages.0.distillation=0.5", "a stage with distillation needs teachers"),
        ("teachers=words", "Recipe.teachers must be a list, not 'words'"),
        ("teachers=3", "Recipe.teachers must be a list, not 3"),
        ("teachers=[3]", "teachers must be model directories, not 3"),
        ('teachers=[""]', "teachers must be model directories, not ''"),
        ('teachers=["words"]', "teachers have a meaning only with a stage with distillation"),
        ("start=3", "Recipe.start must be a text, not 3"),
        ("cell=3", "Recipe.cell must be a text, not 3"),
        ("layers=two", "Recipe.layers must be a whole number, not 'two'"),
        ("decoding.beam_size=0", "beam_size"),
    ],
)
def test_impossible_fields_are_refused_with_the_files_name(small: Path, override: str, message: str) -> None:
    with pytest.raises(OptionError, match=rf"recipe \S*small\.toml: .*{message}"):
        load_recipe(str(small), [override])


LEARNING = ("train_encoder=true", "encoder_rate=1e-4")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((*LEARNING, "frozen=features.3"), "Stage.frozen and Stage.views belong together"),
        ((*LEARNING, "views=2"), "Stage.frozen and Stage.views belong together"),
        (("objective=reward", "attention_penalty=0.1"), 'Stage.attention_penalty has no meaning with .* "reward"'),
        (("objective=reward", "scheduled_sampling=0.1"), 'Stage.scheduled_sampling has no meaning with .* "reward"'),
        (("objective=reward", "distillation=0.1"), 'Stage.distillation has no meaning with .* "reward"'),
    ],
)
def test_fields_that_contradict_each_other_are_refused(small: Path, fields: tuple[str, ...], message: str) -> None:
    with pytest.raises(OptionError, match=rf"recipe \S*small\.toml: .*{message}"):
        load_recipe(str(small), [f"stages.0.{field}" for field in fields])


@pytest.mark.parametrize(
    "values",
    [
        {"views": 2, "crop": 0.6, "colour": 0.1},
        {"train_encoder": True, "encoder_rate": 1e-4, "frozen": "features.3", "views": 2, "crop": 0.6},
        {"train_encoder": True, "encoder_rate": 1e-4, "crop": 0.6, "scheduled_sampling": 1.0, "attention_penalty": 1.0},
        {"objective": "reward", "samples": 2, "sample_length": 1, "likelihood_share": 1.0, "evaluations": 2},
    ],
    ids=" ".join,
)
def test_fields_that_go_together_are_taken(small: Path, values: dict[str, object]) -> None:
    overrides = [f"stages.0.{name}={json.dumps(value)}" for name, value in values.items()]
    (stage,) = load_recipe(str(small), overrides).stages
    assert stage == Stage(epochs=3).replace(**values)


def test_how_pictures_change_is_the_stages(small: Path) -> None:
    overrides = ["stages.0.views=2", "stages.0.crop=0.6", "stages.0.colour=0.1", "stages.0.flip=false"]
    assert load_recipe(str(small), overrides).stages[0].augmentation == Augmentation(flip=False, crop=0.6, colour=0.1)


def test_teachers_of_a_file_come_back(tmp_path: Path) -> None:
    path = tmp_path / "taught.toml"
    path.write_text(SMALL.replace("[[", 'teachers = ["words", "runs/other/model"]\n[[') + "distillation = 0.5\n")
    recipe = load_recipe(str(path))
    assert recipe.teachers == ("words", "runs/other/model")
    assert recipe.stages[0].distillation == 0.5
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert load_recipe(str(path), ['teachers=["words"]']).teachers == ("words",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = small", "Invalid value"),
        (b'name = "\xff"', "utf-8"),
        (b'name = "small"', r"at least one \[\[stages\]\]"),
        (b"[[stages]]\nepochs = 1", "Recipe is incomplete.*name"),
        (b'name = "small"\n[[stages]]\nflip = true', "Stage is incomplete.*epochs"),
    ],
)
def test_malformed_files_are_refused_with_their_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(OptionError, match=rf"recipe \S*broken\.toml: .*{message}"):
        load_recipe(str(path))


def test_unknown_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(OptionError, match=r"no recipe 'wrods': give a TOML file or one of .*words"):
        load_recipe("wrods")
