"""Configurations: an exact way to JSON and back, and no impossible value gets in."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.config import CHOICES, Config, ImageConfig, ModelConfig
from captioner.decoding import DecodingOptions
from captioner.decoding.options import CHOICES as DECODING_CHOICES
from captioner.errors import ModelError, OptionError

SIZES = st.integers(1, 10_000)
FINITE = st.floats(-10, 10)
POSITIVE = st.floats(0.001, 10)

IMAGES = st.builds(
    ImageConfig,
    height=SIZES,
    width=SIZES,
    fit=st.sampled_from(["stretch", "crop"]),
    mean=st.tuples(FINITE, FINITE, FINITE),
    std=st.tuples(POSITIVE, POSITIVE, POSITIVE),
)
MODELS = st.builds(
    ModelConfig,
    vocabulary_size=SIZES,
    encoder=st.text(),
    grid_node=st.text(),
    grid_rows=SIZES,
    grid_columns=SIZES,
    grid_features=SIZES,
    value_size=SIZES,
    attention_size=SIZES,
    embedding_size=SIZES,
    hidden_size=SIZES,
    cell=st.sampled_from(CHOICES["cell"]),
    layers=SIZES,
    attention=st.sampled_from(["additive", "general"]),
    attend=st.just("after"),
    input_feeding=st.booleans(),
    image_input=st.sampled_from(CHOICES["image_input"]),
    gated_context=st.booleans(),
    tied_output=st.booleans(),
    dropout=st.floats(0, 0.99),
)
PYRAMIDS = st.builds(
    ModelConfig,
    vocabulary_size=SIZES,
    grid_rows=SIZES.map(lambda number: 4 * number),
    value_size=SIZES.map(lambda number: 2 * number),
    output_size=SIZES,
    reader=st.just("pyramid"),
    tied_output=st.just(False),
)
ADAPTIVE = st.builds(
    ModelConfig,
    vocabulary_size=SIZES,
    attention=st.sampled_from(["additive", "dot", "general"]),
    attend=st.just("after"),
    sentinel=st.booleans(),
)
BLIND = st.builds(
    ModelConfig,
    vocabulary_size=SIZES,
    reader=st.sampled_from(["none", "bilstm"]),
    attention=st.just("none"),
    gated_context=st.just(False),
)
OPTIONS = st.builds(
    DecodingOptions,
    method=st.sampled_from(["beam", "sample"]),
    rank=st.sampled_from(DECODING_CHOICES["rank"]),
    beam_size=st.integers(50, 100),
    n_best=st.integers(1, 50),
    max_length=st.integers(1, 1000),
    length_penalty=st.floats(0, 10),
    no_repeat_ngram=st.integers(0, 100),
    temperature=st.floats(0.01, 100),
    top_k=st.integers(0, 1_000_000),
    top_p=st.floats(0.001, 1),
    seed=st.none() | st.integers(0, 2**64),
)


@given(config=IMAGES | MODELS | PYRAMIDS | ADAPTIVE | BLIND | OPTIONS)
def test_json_brings_back_the_same(config: Config) -> None:
    values = json.loads(json.dumps(config.to_dict()))
    back = type(config).from_dict(values)
    assert back == config
    assert hash(back) == hash(config)  # a list that slipped in would have none
    assert back.to_dict() == config.to_dict()


def test_what_is_not_given_has_its_default() -> None:
    assert ImageConfig.from_dict({"height": 64}) == ImageConfig(height=64)
    assert ModelConfig.from_dict({"vocabulary_size": 9}) == ModelConfig(vocabulary_size=9)
    assert DecodingOptions.from_dict({}) == DecodingOptions()


def test_a_copy_differs_where_it_is_told_to_and_is_checked_again() -> None:
    assert ImageConfig().replace(width=7) == ImageConfig(width=7)
    with pytest.raises(OptionError, match="width"):
        ImageConfig().replace(width=0)


@pytest.mark.parametrize("config", [ImageConfig(), ModelConfig(vocabulary_size=9), DecodingOptions()])
def test_an_unknown_key_is_refused_and_the_known_ones_named(config: Config) -> None:
    with pytest.raises(ModelError, match="'colour', 'hue'") as caught:
        type(config).from_dict(config.to_dict() | {"hue": 1, "colour": 2})
    assert caught.value.code == "model_mismatch"
    for name in config.to_dict():
        assert name in str(caught.value)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ModelError, match="vocabulary_size") as caught:
        ModelConfig.from_dict({"encoder": "vgg16"})
    assert caught.value.code == "model_mismatch"


IMPOSSIBLE_IMAGES = [
    {"height": 0},
    {"width": -5},
    {"width": 22.4},
    {"height": True},
    {"height": "224"},
    {"fit": "squeeze"},
    {"mean": (0.5,)},
    {"std": (1.0, 1.0)},
    {"std": (1.0, 0.0, 1.0)},
]
IMPOSSIBLE_MODELS = [
    {name: value}
    for name in (
        "vocabulary_size",
        "value_size",
        "attention_size",
        "embedding_size",
        "hidden_size",
        "layers",
        "grid_rows",
        "grid_columns",
        "grid_features",
    )
    for value in (0, -1, 1.5, "8", True)
] + [
    *({name: "unheard of"} for name in CHOICES),
    *({name: None} for name in CHOICES),
    *({name: 1} for name in ("input_feeding", "sentinel", "gated_context", "tied_output")),
    {"input_feeding": "false"},
    {"dropout": 1.0},
    {"dropout": -0.1},
    {"dropout": math.nan},
    {"tied_output": False, "output_size": -1},
    {"output_size": 1.5},
    {"output_size": True},
    {"output_size": 256},  # the output layer is tied to an embedding of 512
    {"reader": "funnel"},
    {"reader": "pyramid"},  # 7 x 7 positions are no multiple of four
    {"grid_rows": 8, "reader": "pyramid", "value_size": 5},
]
IMPOSSIBLE_OPTIONS = [
    {name: value}
    for name, values in {
        "method": ("greedy", None),
        "beam_size": (0, 101, 2.0, True, "3", None),
        "n_best": (0, 101, 4, True),  # 4 is more than the beam holds
        "max_length": (0, 1001, -1),
        "no_repeat_ngram": (-1, 101),
        "top_k": (-1, 1_000_001, 2.5),
        "length_penalty": (-0.1, 10.1, math.nan, math.inf, "1", True),
        "temperature": (0, 101, math.nan),
        "top_p": (0, 1.1),
        "seed": (-1, 0.5, True, "7"),
    }.items()
    for value in values
] + [{"method": "sample", "n_best": 101}]


@pytest.mark.parametrize(
    ("kind", "values"),
    [(ImageConfig, values) for values in IMPOSSIBLE_IMAGES]
    + [(ModelConfig, {"vocabulary_size": 9} | values) for values in IMPOSSIBLE_MODELS]
    + [(DecodingOptions, values) for values in IMPOSSIBLE_OPTIONS],
)
def test_an_impossible_value_is_refused_by_name(kind: type[Config], values: dict[str, object]) -> None:
    name = list(values)[-1]
    for make in (kind.from_dict, lambda values: kind(**values)):
        with pytest.raises(OptionError, match=name) as caught:
            make(values)
        assert caught.value.code == "bad_option"


def test_the_limits_themselves_are_possible() -> None:
    DecodingOptions(beam_size=1, max_length=1, length_penalty=0, temperature=0.01, top_p=0.001)
    DecodingOptions(beam_size=100, n_best=100, max_length=1000, length_penalty=10, temperature=100, top_p=1)
    ModelConfig(vocabulary_size=1, dropout=0)
    ModelConfig(vocabulary_size=1, embedding_size=256, output_size=256)
    ModelConfig(vocabulary_size=1, tied_output=False, output_size=1)
    ModelConfig(vocabulary_size=1, grid_rows=2, grid_columns=2, reader="pyramid", value_size=2)


def test_sampling_draws_more_than_a_beam_would_hold() -> None:
    assert DecodingOptions(method="sample", beam_size=1, n_best=9).n_best == 9
