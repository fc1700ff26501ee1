"""Flags that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from captioner.loading import AUTO, ENGINES

DECODING = ("beam_size", "length_penalty", "no_repeat_ngram", "rank")
NETWORK = {"engine": AUTO, "device": None, "precision": "fp32", "threads": None}  # with what each is by default

Add = Callable[..., Any]
"""``add_argument`` of a parser or of a group."""


def add_decoding_flags(add: Add) -> None:
    """Let a command's user change the model's own decoding; what is left out is None."""
    add("--beam-size", type=int, metavar="N", help="hypotheses kept; 1 is greedy [the model's own]")
    add("--length-penalty", type=float, metavar="P", help="0 prefers short ones [the model's own]")
    add("--no-repeat-ngram", type=int, metavar="N", help="say no N tokens twice [the model's own]")
    add("--rank", metavar="BY", help="score, cider or consensus, see README.md [the model's own]")


def add_network_flags(add: Add) -> None:
    """Let a command's user choose what runs the network."""
    add("--engine", default=NETWORK["engine"], help=f"what runs the network: {', '.join(ENGINES)} [{AUTO}]")
    add("--device", help="for engine torch: cpu, cuda or mps [the best one here]")
    add("--precision", default=NETWORK["precision"], help="fp32, or bf16 or int8: faster, less exact [fp32]")
    add("--threads", type=int, metavar="N", help="cores that the network may use [all]")


def decoding_of(arguments: argparse.Namespace, *more: str) -> dict[str, Any]:
    """The decoding that was asked for: of :data:`DECODING` and ``more`` what is not left out."""
    return {name: value for name in (*DECODING, *more) if (value := getattr(arguments, name)) is not None}


def network_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is to run the network, as :func:`captioner.loading.load` takes it."""
    return {name: getattr(arguments, name) for name in NETWORK}
