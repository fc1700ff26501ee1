"""What a run begins with, and what it finds out before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from captioner.checkpoint import load_model, save_model
from captioner.errors import DataError, ModelError, OptionError, WeightsError
from captioner.model import CaptionModel
from captioner.tokens import Vocabulary
from training.batching import make_corpus
from training.datasets import Example
from training.recipe import Recipe, Stage
from training.start import describe, load_start, tell
from training.train import train

STILL = Stage(epochs=1, images_per_batch=12, decoder_rate=1e-30)
RUINOUS = Stage(epochs=2, images_per_batch=4, decoder_rate=1.0, warmup=0.0)


@pytest.fixture
def vocabulary(toy_recipe: Recipe, toy_examples: dict[str, list[Example]]) -> Vocabulary:
    return make_corpus(toy_examples["train"], toy_recipe).vocabulary


def begin(recipe: Recipe, vocabulary: Vocabulary) -> CaptionModel:
    """A new model, with the weights that its recipe starts from."""
    torch.manual_seed(5)
    model = CaptionModel(describe(recipe, vocabulary, {}).model)
    load_start(model, recipe, vocabulary)
    return model


def test_a_model_starts_with_exactly_the_weights_of_another(
    toy_recipe: Recipe, vocabulary: Vocabulary, learnt_run: Path
) -> None:
    begun = begin(toy_recipe.replace(start=str(learnt_run / "model"), dropout=0.4), vocabulary)
    expected = load_model(learnt_run / "model")[0].state_dict()
    assert list(begun.state_dict()) == list(expected)
    for name, value in begun.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert begun.output.weight is begun.embedding.weight
    assert begun.dropout.p == 0.4, "which is no matter of weights"
    assert all(parameter.requires_grad for parameter in begun.parameters())


def test_the_first_stage_begins_there(
    toy_recipe: Recipe, learnt_run: Path, toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    recipe = toy_recipe.replace(start=str(learnt_run / "model"), weight_decay=0.0, stages=(STILL,))
    train(recipe, toy_data, tmp_path / "run", cache=toy_cache)
    found = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"]
    for name, parameter in load_model(learnt_run / "model")[0].named_parameters():
        assert torch.equal(found[name], parameter), name


def test_what_a_run_began_with_is_kept_where_it_was_better(
    toy_recipe: Recipe, learnt_run: Path, toy_data: Path, toy_cache: Path, tmp_path: Path
) -> None:
    recipe = toy_recipe.replace(start=str(learnt_run / "model"), stages=(RUINOUS, STILL))
    progress = train(recipe, toy_data, tmp_path / "run", cache=toy_cache)
    ruined, *_, spared = (epoch["dev_cider"] for epoch in progress.history)
    assert ruined < progress.best
    assert spared > ruined, "the next stage begins with the best so far"
    kept = load_model(tmp_path / "run" / "model")[0].state_dict()
    for name, value in load_model(learnt_run / "model")[0].state_dict().items():
        assert torch.equal(kept[name], value), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 32}, "another architecture than the recipe: its hidden_size is 24, not 32"),
        (
            {"cell": "gru", "layers": 2},
            "another architecture .*: its cell is 'lstm', not 'gru', its layers is 1, not 2",
        ),
        ({"grid_node": "features.5"}, "another architecture .*: its grid_node is 'features.4', not 'features.5'"),
        ({"min_count": 9}, "another vocabulary than this data gives"),
    ],
)
def test_another_architecture_or_vocabulary_cannot_start(
    toy_recipe: Recipe,
    toy_examples: dict[str, list[Example]],
    learnt_run: Path,
    change: dict[str, object],
    message: str,
) -> None:
    recipe = toy_recipe.replace(start=str(learnt_run / "model"), **change)
    with pytest.raises(DataError, match=message):
        begin(recipe, make_corpus(toy_examples["train"], recipe).vocabulary)


def test_a_model_directory_gives_its_encoder_alone(
    toy_recipe: Recipe, vocabulary: Vocabulary, toy_weights: Path, toy_run: Path, tmp_path: Path
) -> None:
    other, info = load_model(toy_run / "model")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    save_model(tmp_path / "other", other, info)
    begun = begin(toy_recipe.replace(encoder_weights=str(tmp_path / "other"), hidden_size=32), vocabulary)
    afresh = begin(toy_recipe.replace(encoder_weights="", hidden_size=32), vocabulary)
    for name, value in begun.state_dict().items():
        expected = other.state_dict()[name] if name.startswith("encoder.") else afresh.state_dict()[name]
        assert torch.equal(value, expected), name


def test_an_encoder_that_reaches_further_may_give_its_beginning(
    toy_recipe: Recipe, vocabulary: Vocabulary, toy_run: Path
) -> None:
    recipe = toy_recipe.replace(encoder_weights=str(toy_run / "model"), grid_node="features.3")
    expected = load_model(toy_run / "model")[0].encoder.state_dict()
    for name, value in begin(recipe, vocabulary).encoder.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("change", [{"grid_node": "features.6"}, {"encoder": "resnet18", "grid_node": "layer1"}])
def test_another_encoder_cannot_be_taken(
    toy_recipe: Recipe, vocabulary: Vocabulary, toy_run: Path, change: dict[str, str]
) -> None:
    recipe = toy_recipe.replace(encoder_weights=str(toy_run / "model"), **change)
    with pytest.raises(WeightsError, match=r"has the encoder mobilenet_v2 up to features\.4, and the recipe needs"):
        begin(recipe, vocabulary)


def test_a_start_that_is_not_there_is_named(toy_recipe: Recipe, vocabulary: Vocabulary) -> None:
    with pytest.raises(ModelError, match="no model 'nowhere'"):
        begin(toy_recipe.replace(start="nowhere"), vocabulary)


def test_weights_are_told_by_the_name_of_their_model_and_not_by_their_place(toy_run: Path, tmp_path: Path) -> None:
    assert tell(str(toy_run / "model")) == "toy"
    assert tell(str(tmp_path / "weights.pth")) == "weights.pth"
    assert [tell(source) for source in ("imagenet", "")] == ["imagenet", ""]


def test_the_card_names_no_place_of_the_machine(
    toy_recipe: Recipe, vocabulary: Vocabulary, toy_run: Path, learnt_run: Path, toy_weights: Path
) -> None:
    taught = Stage(epochs=1, distillation=0.5)
    recipe = toy_recipe.replace(
        start=str(toy_run / "model"), teachers=(str(toy_run / "model"), str(learnt_run / "model")), stages=(taught,)
    )
    told = Recipe.from_dict(describe(recipe, vocabulary, {}).provenance["recipe"])
    assert told == recipe.replace(start="toy", teachers=("toy", "toy"), encoder_weights=toy_weights.name)


@pytest.mark.parametrize(
    ("frozen", "message"),
    [("features.1x", "mobilenet_v2 has no node 'features.1x'"), ("features.5", r"the grid features\.4 .* features\.5")],
)
def test_a_later_stages_frozen_module_is_looked_for_before_the_first(
    toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path, frozen: str, message: str
) -> None:
    later = Stage(epochs=1, train_encoder=True, encoder_rate=1e-4, frozen=frozen, views=2)
    with pytest.raises(OptionError, match=message):
        train(toy_recipe.replace(stages=(STILL, later)), toy_data, tmp_path / "run", cache=toy_cache)
    assert not (tmp_path / "run" / "last.pt").exists()


@pytest.mark.parametrize("fault", ["vocabulary", "missing"])
def test_a_later_stages_teachers_are_looked_at_before_the_first(
    toy_recipe: Recipe, toy_data: Path, toy_cache: Path, tmp_path: Path, tiny_model_dir: Path, fault: str
) -> None:
    later = Stage(epochs=1, distillation=0.5)
    teacher = str(tiny_model_dir) if fault == "vocabulary" else "nowhere"
    expected = (
        pytest.raises(DataError, match="has another vocabulary")
        if fault == "vocabulary"
        else pytest.raises(ModelError, match="no model 'nowhere'")
    )
    with expected:
        train(
            toy_recipe.replace(stages=(STILL, later), teachers=(teacher,)), toy_data, tmp_path / "run", cache=toy_cache
        )
    assert not (tmp_path / "run" / "last.pt").exists()


def test_a_broken_model_is_refused(toy_recipe: Recipe, vocabulary: Vocabulary, toy_run: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(toy_run / "model", tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    for change in ({"start": str(broken)}, {"encoder_weights": str(broken)}):
        with pytest.raises(ModelError, match="cannot read the weights"):
            begin(toy_recipe.replace(**change), vocabulary)
