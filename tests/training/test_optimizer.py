from __future__ import annotations

import copy

import pytest
import torch
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from captioner.model import CaptionModel
from training.optimizer import Learner, make_optimizer, moving_average, schedule
from training.recipe import Recipe, Stage

FROZEN = Stage(epochs=1, decoder_rate=3e-3)
LEARNING = Stage(epochs=1, decoder_rate=3e-3, train_encoder=True, encoder_rate=2e-4)


@pytest.fixture
def model(tiny_model: CaptionModel) -> CaptionModel:
    return copy.deepcopy(tiny_model)


def groups_of(model: CaptionModel, optimizer: AdamW) -> dict[str, tuple[float, float]]:
    """Peak rate and decay by parameter name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [
        (names[id(parameter)], (group["peak"], group["weight_decay"]))
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert len(found) == len(dict(found)), "a parameter stands in two groups"
    return dict(found)


def test_a_frozen_stage_trains_the_decoder_alone(model: CaptionModel) -> None:
    groups = groups_of(model, make_optimizer(model, FROZEN, weight_decay=0.1))
    decoder = {name for name, _ in model.named_parameters() if not name.startswith("encoder.")}
    assert set(groups) == decoder
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == decoder
    assert {rate for rate, _ in groups.values()} == {3e-3}


def test_a_learning_stage_trains_everything_at_two_rates(model: CaptionModel) -> None:
    make_optimizer(model, FROZEN, weight_decay=0.1)  # thawing must undo an earlier stage's freezing
    groups = groups_of(model, make_optimizer(model, LEARNING, weight_decay=0.1))
    assert set(groups) == {name for name, _ in model.named_parameters()}
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, (rate, _) in groups.items():
        assert rate == (2e-4 if name.startswith("encoder.") else 3e-3), name


def test_frozen_modules_are_in_no_group(model: CaptionModel) -> None:
    make_optimizer(model, LEARNING, weight_decay=0.1)
    partly = LEARNING.replace(frozen="features.3", views=2)
    groups = groups_of(model, make_optimizer(model, partly, weight_decay=0.1))
    frozen = {
        name
        for name, _ in model.named_parameters()
        if name.startswith(tuple(f"encoder.backbone.features.{block}." for block in range(4)))
    }
    assert len(frozen) > 20
    assert set(groups) == {name for name, _ in model.named_parameters()} - frozen
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == frozen


def test_a_learner_goes_on_where_its_states_were_taken(model: CaptionModel, toy_recipe: Recipe) -> None:
    recipe = toy_recipe.replace(gradient_clip=0.5)

    def learn(learner: Learner, *steps: int) -> None:
        for step in steps:
            learner.learn(sum((weight**2).sum() * (step + 1) for weight in learner.model.parameters()), step / 4)

    whole = Learner(copy.deepcopy(model), recipe, LEARNING)
    learn(whole, 0, 1)
    states = copy.deepcopy(whole.states())
    learn(whole, 2, 3)
    resumed = Learner(copy.deepcopy(model), recipe, LEARNING)
    resumed.restore(states)
    learn(resumed, 2, 3)
    for mine, theirs in ((resumed.model, whole.model), (resumed.average, whole.average)):
        for (name, found), expected in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(found, expected), name
    assert resumed.rate == whole.rate == pytest.approx(3e-3 * schedule(3 / 4, LEARNING.warmup))
    name = "output_hidden.weight"
    assert not torch.equal(whole.average.state_dict()[name], whole.model.state_dict()[name])


def test_a_learner_averages_what_it_has_learnt(model: CaptionModel, toy_recipe: Recipe) -> None:
    learner = Learner(model, toy_recipe.replace(average_decay=0.0), LEARNING)
    learner.learn(model.output.weight.square().sum(), 0.1)
    assert torch.equal(learner.average.output.weight, model.output.weight)
    assert learner.average.output.weight is learner.average.embedding.weight


def test_matrices_decay_and_nothing_else(model: CaptionModel) -> None:
    groups = groups_of(model, make_optimizer(model, LEARNING, weight_decay=0.1))
    for name, parameter in model.named_parameters():
        assert groups[name][1] == (0.1 if parameter.dim() > 1 else 0), name
    assert groups["cells.0.bias_hh"][1] == 0
    assert groups["embedding.weight"][1] == 0.1
    assert groups["encoder.backbone.features.0.1.weight"][1] == 0, "batch-norm scale"


def test_schedule_rises_linearly_and_falls_along_a_cosine() -> None:
    values = [schedule(done, warmup=0.2) for done in (0, 0.1, 0.2, 0.4, 0.6, 0.8, 1)]
    assert values == pytest.approx([0, 0.5, 1, 0.853553, 0.5, 0.146447, 0], abs=1e-6)


def test_schedule_without_warmup_begins_at_its_peak() -> None:
    assert schedule(0, warmup=0) == 1


@pytest.mark.parametrize(
    ("updates", "kept"),
    [(0, 1 / 10), (1, 2 / 11), (90, 91 / 100), (10_000, 0.95)],
)
def test_moving_average_forgets_faster_while_young(updates: int, kept: float) -> None:
    average, current = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 4.0])
    found = moving_average(0.95, average, current, torch.tensor(updates))
    torch.testing.assert_close(found, kept * average + (1 - kept) * current)


def test_moving_average_with_decay_zero_keeps_the_last_weights() -> None:
    current = torch.tensor([3.0, 4.0])
    torch.testing.assert_close(moving_average(0, torch.zeros(2), current, 5), current, rtol=0, atol=0)


def test_the_average_keeps_a_tied_layer_tied(model: CaptionModel) -> None:
    average = AveragedModel(model)
    assert average.module.output.weight is average.module.embedding.weight
