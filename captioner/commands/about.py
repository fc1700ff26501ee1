"""``captioner models`` and ``captioner info``: what models say of themselves."""

from __future__ import annotations

import argparse
import json

import captioner
from captioner.checkpoint import ModelInfo, bundled_models, read_info
from captioner.config import ModelConfig
from captioner.errors import CaptionerError, OptionError
from captioner.flags import NETWORK, network_of


def models_command(_arguments: argparse.Namespace) -> int:
    """``captioner models``: a line a model, its dev figures behind its name."""
    for name in bundled_models():
        info = read_info(name)
        print(f"{name}\t{_figures(info)}\t{info.description}")
    return 0


def info_command(arguments: argparse.Namespace) -> int:
    """``captioner info``."""
    info = read_info(arguments.model)
    if arguments.json:
        if network_of(arguments) != NETWORK:
            raise OptionError("--json tells what the model says of itself: leave out what is to run it")
        print(json.dumps(info.to_dict(), ensure_ascii=False, indent=2))
        return 0
    engine = _engine(arguments)  # first, as it may refuse what was asked for
    model, image = info.model, info.image
    facts = {
        "name": info.name,
        "description": info.description,
        "figures": _figures(info) or "none recorded",
        "pictures": f"{image.width} x {image.height} pixels, {image.fit}",
        "encoder": f"{model.encoder}, grid {model.grid_rows} x {model.grid_columns} x {model.grid_features}",
        "decoder": _decoder(model),
        "vocabulary": f"{len(info.vocabulary)} {info.tokenizer}",
        "decoding": ", ".join(f"{name} {value}" for name, value in info.decoding.to_dict().items()),
        "trained on": ", ".join(f"{count} {split}" for split, count in info.provenance.get("images", {}).items()),
        "engine": engine,
    }
    for name, fact in facts.items():
        print(f"{name:12} {fact}")
    return 0


def _engine(arguments: argparse.Namespace) -> str:
    """What runs a model here, and why."""
    try:
        loaded = captioner.load(arguments.model, **network_of(arguments))
    except OptionError:  # what was asked for there is not
        raise
    except CaptionerError as error:  # the rest is true all the same
        return f"none: {error}"
    return f"{loaded.engine.name}: {loaded.reason}"


def _decoder(model: ModelConfig) -> str:
    """An architecture behind its grid: what it consists of with the widths, then what it does besides."""
    attention = f"{model.attention} attention" + f" {model.attention_size}" * (model.attention == "additive")
    besides = ("gated_context", "input_feeding", "sentinel", "tied_output")
    return ", ".join(
        [
            f"reader {model.reader} {model.value_size}",
            f"{model.layers} x {model.cell} {model.hidden_size}",
            "no attention" if model.attention == "none" else f"{attention} {model.attend} the cells",
            f"image at {model.image_input.replace('both', 'start and steps')}",
            f"embedding {model.embedding_size}",
            *(name.replace("_", " ") for name in besides if getattr(model, name)),
        ]
    )


def _figures(info: ModelInfo) -> str:
    return "; ".join(
        f"{split} " + " ".join(f"{metric} {value:.3f}" for metric, value in values["scores"].items())
        for split, values in info.figures.items()
    )
