"""Engines of exported graphs: which runtimes make one, and how it is put together from their parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from captioner.config import ImageConfig
from captioner.engines.graph_engine import DECODER, ENCODER, GRID, Graph, GraphEngine, OneOrMany
from captioner.graphs import check, graph_name, is_cached


class Composition(NamedTuple):
    """Of each part of a network: which runtime runs it, and what it computes in."""

    encoder: tuple[str, str]
    decoder: tuple[str, str]


# What runs graphs, by name and precision; of those that compute in what is asked for, the first that works is taken.
# In fp32 the two are equally fast, and ONNX Runtime is the smaller. The encoder is never in 8 bits: it would be no
# faster than in bf16, and MobileNet's features do not survive it.
GRAPH_ENGINES = {
    "mixed": {"int8": Composition(("openvino", "bf16"), ("onnxruntime", "int8"))},
    "onnxruntime": {
        "fp32": Composition(("onnxruntime", "fp32"), ("onnxruntime", "fp32")),
        "int8": Composition(("onnxruntime", "fp32"), ("onnxruntime", "int8")),
    },
    "openvino": {
        "fp32": Composition(("openvino", "fp32"), ("openvino", "fp32")),
        "bf16": Composition(("openvino", "bf16"), ("openvino", "bf16")),
        "int8": Composition(("openvino", "bf16"), ("openvino", "int8")),
    },
}
TOLERANCES = {"fp32": 0.01, "bf16": 0.3, "int8": 0.3}  # of a graph's check; with `words` bf16 and int8 are off by .04
BF16 = ("openvino", "bf16")  # where both parts are computed so, grids need no more than 16 bits in between
AT_ONCE = 4  # pictures, for a runtime's encoder
MOST_LANES = 4  # of more than that, Python could not keep up with the search


def open_engine(
    graphs: Path, name: str, image: ImageConfig, precision: str, threads: int, *, lanes: int = 1
) -> GraphEngine:
    """An engine of exported graphs, checked.

    Args:
        graphs: their directory.
        name, precision: of :data:`GRAPH_ENGINES`.
        image: the size of the model's pictures.
        threads: that the calls may use together.
        lanes: how many calls are to be computed side by side, each by its share of the threads. An engine of one lane
            opens another, of several, when it is asked for them.

    Raises:
        ModelError: it computes something else than it should.
        Exception: of a runtime, which cannot open the graphs; each has its own.
    """
    parts = GRAPH_ENGINES[name][precision]
    opened = (
        GRAPHS[runtime](Opening(graphs, part, arithmetic, threads, lanes, bf16_grids=set(parts) == {BF16}))
        for part, (runtime, arithmetic) in zip((ENCODER, DECODER), parts, strict=True)
    )
    most = min(threads, MOST_LANES) if lanes == 1 else 1

    def open_lanes() -> GraphEngine | None:
        if not graphs.is_dir():  # they could not be kept
            return None
        return open_engine(graphs, name, image, precision, threads, lanes=most)

    engine = GraphEngine(
        *opened,
        name=f"{name} {precision}, {threads} thread" + "s" * (threads > 1),
        at_once=AT_ONCE,
        lanes=most,
        open_lanes=open_lanes,
    )
    check(engine, image, graphs, tolerance=TOLERANCES[precision])
    return engine


class Opening(NamedTuple):
    """What it takes to open a graph.

    Attributes:
        directory: of the graphs.
        part: encoder or decoder.
        arithmetic: what to compute in.
        threads: in all.
        lanes: that share them.
        bf16_grids: whether both parts keep grids in 16 bits.
    """

    directory: Path
    part: str
    arithmetic: str
    threads: int
    lanes: int
    bf16_grids: bool


def _onnxruntime(opening: Opening) -> Graph:
    from captioner.engines.onnxruntime_graph import OnnxRuntimeGraph

    path = opening.directory / graph_name(opening.part, quantised=opening.arithmetic == "int8")
    eager = opening.part == DECODER  # whose steps follow each other
    # A session has one pool, for all calls; beside it works the thread of each caller.
    return OnnxRuntimeGraph(path, threads=opening.threads - opening.lanes + 1, eager=eager)


def _openvino(opening: Opening) -> Graph:
    from captioner.engines.openvino_graph import ARITHMETIC, OpenVinoGraph

    many = partial(
        OpenVinoGraph,
        opening.directory / graph_name(opening.part),
        arithmetic=ARITHMETIC[opening.arithmetic],
        threads=opening.threads,
        lanes=opening.lanes,
        bf16_ports=frozenset(GRID) if opening.bf16_grids else frozenset(),
        # Kept in the user's own cache alone: what is compiled is code.
        cache=opening.directory / "compiled" if _is_ours(opening.directory) else None,
    )
    # How many rows a decoder reads is told by the caller's beam; and lanes read many images.
    return OneOrMany(many(images=1), many()) if opening.part == ENCODER and opening.lanes == 1 else many()


def _is_ours(graphs: Path) -> bool:
    """Whether graphs lie in the user's cache, and that may be written to, as one for all users may not."""
    return is_cached(graphs) and os.access(graphs, os.W_OK)


GRAPHS: dict[str, Callable[[Opening], Graph]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
RUNTIMES = tuple(GRAPHS)  # packages of these names
