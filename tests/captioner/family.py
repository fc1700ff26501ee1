"""The members of the family of decoders that tests try: every choice of a part, and every pair of choices there is."""

from __future__ import annotations

import itertools
import random
from typing import Any

from captioner.config import CHOICES, ModelConfig
from captioner.errors import OptionError

HIDDEN = 6
CORE = {
    "cell": CHOICES["cell"],
    "attention": CHOICES["attention"],
    "attend": CHOICES["attend"],
    "input_feeding": (False, True),
    "sentinel": (False, True),
}
REST = {
    "layers": (1, 2),
    "reader": CHOICES["reader"],
    "image_input": CHOICES["image_input"],
    "gated_context": (True, False),
    "tied_output": (True, False),
}


def sized(choices: dict[str, Any]) -> dict[str, Any]:
    """The choices with small widths: all different where they may be."""
    equal = choices["attention"] == "dot" or choices["sentinel"]
    return choices | {
        "value_size": HIDDEN if equal else 4,
        "hidden_size": HIDDEN,
        "embedding_size": 5,
        "attention_size": 7,
        "output_size": 0 if choices["tied_output"] else 9,
    }


def possible(choices: dict[str, Any]) -> bool:
    try:
        ModelConfig(vocabulary_size=14, grid_rows=2, grid_columns=4, **sized(choices))
    except OptionError:
        return False
    return True


def products(fields: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(zip(fields, values, strict=True)) for values in itertools.product(*fields.values())]


def make_members() -> list[dict[str, Any]]:
    """Each cell with each attention in each place where it may be, and the rest drawn so that all pairs occur."""
    draw = random.Random(73)  # another seed would leave some out
    members = []
    for core in products(CORE):
        gated = (core["attention"] != "none",)
        if possible(core | {name: values[0] for name, values in REST.items()} | {"gated_context": gated[0]}):
            rest = {name: draw.choice(values) for name, values in REST.items()}
            members.append(core | rest | {"gated_context": rest["gated_context"] and gated[0]})
    return members


MEMBERS = make_members()


def spell(member: dict[str, Any]) -> str:
    """What a member consists of."""
    parts = {name: value if isinstance(value, str) else f"{value} {name}" for name, value in member.items()}
    return " ".join(name if member[name] is True else part for name, part in parts.items() if member[name])
