"""From a model's name to a captioner: finds the directory, chooses what runs the network, tells why."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from captioner.captioner import Captioner
from captioner.checkpoint import ModelInfo, read_info, resolve
from captioner.config import require
from captioner.cores import usable_cores
from captioner.decoding.expectation import Expectation
from captioner.engines import Engine
from captioner.engines.graph_engine import DECODER, ENCODER, GRID, Graph, GraphEngine, OneOrMany
from captioner.errors import CaptionerError, DependencyError, ModelError
from captioner.graphs import check, graph_name, graphs_of, is_cached
from captioner.reading import WordReader

log = logging.getLogger(__name__)

AUTO, TORCH = "auto", "torch"


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
OFFERED = {TORCH: ("fp32", "bf16")} | {name: tuple(precisions) for name, precisions in GRAPH_ENGINES.items()}
ENGINES = (AUTO, *OFFERED)
PRECISIONS = ("fp32", "bf16", "int8")
TOLERANCES = {"fp32": 0.01, "bf16": 0.3, "int8": 0.3}  # of a graph's check; with `words` bf16 and int8 are off by .04
HALVES = ("openvino", "bf16")  # where both parts are computed so, grids need no more than 16 bits in between
AT_ONCE = 4  # pictures, for a runtime's encoder
MOST_LANES = 4  # of more than that, Python could not keep up with the search


def load(
    model: str | Path = "words",
    *,
    engine: str = AUTO,
    device: str | None = None,
    precision: str = "fp32",
    threads: int | None = None,
) -> Captioner:
    """Load a trained model.

    Args:
        model: a bundled model's name, or a model directory.
        engine: what runs the network: ``torch``, or on the CPU, faster and without torch, ``onnxruntime``,
            ``openvino`` or, with a part for each, ``mixed``; ``auto`` takes the fastest of these that works here, or
            else torch. The first time that one of them meets a model, torch exports it, which takes some seconds; see
            :mod:`captioner.graphs`.
        device: for torch: ``cpu``, ``cuda``, ``mps``; by default the best one here.
        precision: ``fp32``; or, where there is an engine for it, faster and less exact: ``bf16``, or ``int8`` for the
            decoder's matrices, beside an encoder in bf16 or, under ``onnxruntime``, in fp32.
        threads: that the network may use on the CPU; by default as many as there are cores, see
            :func:`captioner.cores.usable_cores`. Torch's own are one number for the process, and stay as it is.

    Raises:
        ModelError: there is no such model, or it is broken.
        OptionError: the engine, device or precision is unknown, or does not go with the others.
        DependencyError: the engine that was asked for is not installed.
    """
    require(threads is None or threads >= 1, f"threads must be at least 1, not {threads}")
    directory = resolve(model)
    info = read_info(directory)
    runs, reason = choose(directory, info, engine, device, precision, threads or usable_cores())
    return Captioner(runs, info, WordReader.load(directory), Expectation.load(directory), reason=reason)


def choose(
    directory: Path, info: ModelInfo, engine: str, device: str | None, precision: str, threads: int
) -> tuple[Engine, str]:
    """The engine that runs a model, and in a few words why this one. Arguments and errors as for :func:`load`."""
    require(engine in ENGINES, f"unknown engine {engine!r}; choose one of {', '.join(ENGINES)}")
    require(precision in PRECISIONS, f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    require_offered(engine, precision)
    if engine in GRAPH_ENGINES:
        require(device in (None, "cpu"), f"engine {engine} runs on the CPU alone: leave the device out")
        return _open(engine, directory, info, precision, threads), "asked for"
    if engine == TORCH:
        return _torch(directory, device, precision), "asked for"
    torchs = precision in OFFERED[TORCH]
    if device not in (None, "cpu"):
        require(torchs, f"{precision} is for the CPU alone: leave the device out")
        return _torch(directory, device, precision), f"device {device} was asked for"
    if device is None and torchs and _accelerator():
        return _torch(directory, device, precision), "there is an accelerator"
    obstacles: list[str] = []
    for name, precisions in GRAPH_ENGINES.items():
        if precision in precisions:
            try:
                return _open(name, directory, info, precision, threads), "; ".join(
                    ["the first that works here", *obstacles]
                )
            except DependencyError as error:
                obstacles.append(str(error))
            except Exception as error:  # whatever ails a runtime, torch still works
                log.warning("%s", error)
                obstacles.append(f"{name} fails: {error}")
    if not torchs:
        raise DependencyError(_each_once(obstacles))
    try:
        return _torch(directory, device, precision), "; ".join(obstacles)
    except DependencyError as error:
        raise DependencyError(_each_once([*obstacles, str(error)])) from error


def _each_once(obstacles: list[str]) -> str:
    return "; ".join(dict.fromkeys(obstacles))


def require_offered(engine: str, precision: str) -> None:
    """Raise :class:`OptionError` where an engine does not compute in a precision; for ``auto`` some engine does."""
    offered = OFFERED.get(engine, PRECISIONS)
    others = [name for name, precisions in OFFERED.items() if precision in precisions]
    require(
        precision in offered,
        f"engine {engine} computes in {' or '.join(offered)}, not in {precision}: ask for another precision, or for "
        f"{' or '.join(others)}",
    )


def require_installed(engine: str, precision: str) -> None:
    """Raise :class:`DependencyError` where no engine that was asked for is installed."""
    names = [name for name, precisions in OFFERED.items() if engine in (AUTO, name) and precision in precisions]
    if all(map(_missing, names)):
        # Whoever leaves the choice to us needs no more than one package.
        wanted = min((_packages(name) for name in reversed(names)), key=len)
        raise DependencyError(
            f"{precision} needs {' and '.join(wanted)} to be installed: "
            f"pip install 'captioner[{','.join(wanted)}]' brings it"
        )


def _packages(engine: str) -> list[str]:
    """What has to be installed for an engine."""
    plans = GRAPH_ENGINES.get(engine, {}).values()
    return list(dict.fromkeys(runtime for parts in plans for runtime, _ in parts)) or [engine]


def _missing(engine: str) -> list[str]:
    """The packages of an engine that are not installed."""
    return [name for name in _packages(engine) if not find_spec(name)]


def _torch(directory: Path, device: str | None, precision: str) -> Engine:
    try:
        from captioner.checkpoint import load_model
        from captioner.engines.torch_engine import TorchEngine

        network, _ = load_model(directory)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision"):
            raise
        raise DependencyError("engine torch is not installed: pip install 'captioner[torch]' brings it") from error
    return TorchEngine(network, device=device, precision=precision)


def _open(name: str, directory: Path, info: ModelInfo, precision: str, threads: int) -> Engine:
    """An engine of graphs, checked.

    Raises:
        DependencyError: a runtime is not installed; or there are no graphs, and torch is not installed.
        ModelError: the graphs cannot be made, or it computes something else than they should.
    """
    if missing := _missing(name):
        raise DependencyError(f"engine {name} is not installed: pip install 'captioner[{','.join(missing)}]' brings it")
    graphs = directory
    try:
        with graphs_of(directory) as graphs:
            return _engine_of(graphs, name, info, precision, threads)
    except CaptionerError:
        raise
    except Exception as error:  # each runtime has its own exceptions; to the caller they are one
        reason = " ".join(str(error).split())
        raise ModelError(
            f"engine {name} cannot run {info.name!r}: {reason}. If a file in {graphs} is damaged, remove that folder: "
            "graphs that are missing are exported anew"
        ) from error


def _engine_of(
    graphs: Path, name: str, info: ModelInfo, precision: str, threads: int, *, lanes: int = 1
) -> GraphEngine:
    """An engine of the graphs in a directory, whose calls are computed side by side in so many lanes."""
    parts = GRAPH_ENGINES[name][precision]
    opened = (
        GRAPHS[runtime](Opening(graphs, part, arithmetic, threads, lanes, halves=set(parts) == {HALVES}))
        for part, (runtime, arithmetic) in zip((ENCODER, DECODER), parts, strict=True)
    )
    most = min(threads, MOST_LANES)

    def make_lanes() -> list[Engine]:
        if not graphs.is_dir():  # they could not be kept
            return [engine]
        return [_engine_of(graphs, name, info, precision, threads, lanes=most)] * most

    engine = GraphEngine(
        *opened,
        name=f"{name} {precision}, {threads} thread" + "s" * (threads > 1),
        at_once=AT_ONCE,
        make_lanes=make_lanes if lanes < most else None,
    )
    check(engine, info.image, graphs, tolerance=TOLERANCES[precision])
    return engine


class Opening(NamedTuple):
    """What it takes to open a graph.

    Attributes:
        directory: of the graphs.
        part: encoder or decoder.
        arithmetic: what to compute in.
        threads: in all.
        lanes: that share them.
        halves: whether both parts keep grids in 16 bits.
    """

    directory: Path
    part: str
    arithmetic: str
    threads: int
    lanes: int
    halves: bool


def _onnxruntime(opening: Opening) -> Graph:
    from captioner.engines.onnxruntime_graph import OnnxRuntimeGraph

    path = opening.directory / graph_name(opening.part, rounded=opening.arithmetic == "int8")
    eager = opening.part == DECODER  # whose steps follow each other
    return OnnxRuntimeGraph(path, threads=opening.threads // opening.lanes, eager=eager)


def _openvino(opening: Opening) -> Graph:
    from captioner.engines.openvino_graph import ARITHMETIC, OpenVinoGraph

    many = partial(
        OpenVinoGraph,
        opening.directory / graph_name(opening.part),
        arithmetic=ARITHMETIC[opening.arithmetic],
        threads=opening.threads,
        lanes=opening.lanes,
        halve=frozenset(GRID) if opening.halves else frozenset(),
        # Kept in the user's own cache alone: what is compiled is code.
        cache=opening.directory / "compiled" if is_cached(opening.directory) else None,
    )
    # How many rows a decoder reads is told by the caller's beam; and lanes read many images.
    return OneOrMany(many(images=1), many()) if opening.part == ENCODER and opening.lanes == 1 else many()


GRAPHS: dict[str, Callable[[Opening], Graph]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
RUNTIMES = tuple(GRAPHS)  # packages of these names


def _accelerator() -> bool:
    """Whether torch has something faster than the CPU here. Where nothing hints at it, torch is not even imported."""
    hints = Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()  # the drivers of NVIDIA and AMD
    if not (hints or sys.platform == "win32" or (sys.platform == "darwin" and platform.machine() == "arm64")):
        return False
    if not find_spec("torch"):
        return False
    from captioner.engines.torch_engine import pick_device

    return pick_device().type != "cpu"
