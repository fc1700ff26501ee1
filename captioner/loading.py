"""From a model's name to a captioner: finds the directory, chooses what runs the network, tells why."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from captioner.captioner import Captioner
from captioner.checkpoint import ModelInfo, read_info, resolve
from captioner.config import require
from captioner.cores import usable_cores
from captioner.decoding.expectation import Expectation
from captioner.engines import Engine
from captioner.engines.graph_engine import DECODER, ENCODER, Graph, GraphEngine
from captioner.errors import CaptionerError, DependencyError, ModelError
from captioner.graphs import check, graph_name, graphs_of, is_cached
from captioner.reading import WordReader

log = logging.getLogger(__name__)

AUTO, TORCH = "auto", "torch"
# What runs graphs, and the precisions that each computes in. In fp32 they are equally fast; the first is the smaller.
RUNTIMES = {"onnxruntime": ("fp32",), "openvino": ("fp32", "bf16", "int8")}
OFFERED = {TORCH: ("fp32", "bf16")} | RUNTIMES
ENGINES = (AUTO, *OFFERED)
PRECISIONS = ("fp32", "bf16", "int8")
TOLERANCES = {"fp32": 0.01, "bf16": 0.3, "int8": 0.3}  # of a graph's check; with `words` bf16 and int8 are off by .04
AT_ONCE = 8  # pictures, for a runtime's encoder


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
        engine: what runs the network: ``torch``, or on the CPU, faster and without torch, ``onnxruntime`` or
            ``openvino``; ``auto`` takes the first of these two that works here, or else torch. The first time that one
            of them meets a model, torch exports it, which takes some seconds; see :mod:`captioner.graphs`.
        device: for torch: ``cpu``, ``cuda``, ``mps``; by default the best one here.
        precision: ``fp32``; or, where there is an engine for it, faster and less exact: ``bf16``, or ``int8`` for the
            decoder's matrices beside an encoder in bf16.
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
    if engine in RUNTIMES:
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
    for runtime, precisions in RUNTIMES.items():
        if precision in precisions:
            try:
                return _open(runtime, directory, info, precision, threads), "; ".join(
                    ["the first that works here", *obstacles]
                )
            except DependencyError as error:
                obstacles.append(str(error))
            except Exception as error:  # whatever ails a runtime, torch still works
                log.warning("Engine %s cannot run %s: %s", runtime, info.name, error)
                obstacles.append(f"{runtime} fails: {error}")
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
    require(precision in offered, f"engine {engine} computes in {' or '.join(offered)}, not in {precision}")


def require_installed(engine: str, precision: str) -> None:
    """Raise :class:`DependencyError` where no engine that was asked for is installed."""
    names = [name for name, precisions in OFFERED.items() if engine in (AUTO, name) and precision in precisions]
    if not any(map(find_spec, names)):
        raise DependencyError(
            f"{precision} needs {' or '.join(names)}, and none of them is installed: "
            f"pip install 'captioner[{names[-1]}]' brings one"
        )


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


def _open(runtime: str, directory: Path, info: ModelInfo, precision: str, threads: int) -> Engine:
    """The engine of a runtime, checked.

    Raises:
        DependencyError: the runtime is not installed; or there are no graphs, and torch is not installed.
        ModelError: the graphs cannot be made, or it computes something else than they should.
    """
    if not find_spec(runtime):
        raise DependencyError(f"engine {runtime} is not installed: pip install 'captioner[{runtime}]' brings it")
    try:
        return _opened(runtime, directory, info, precision, threads)
    except CaptionerError:
        raise
    except Exception as error:  # each runtime has its own exceptions; to the caller they are one
        raise ModelError(f"engine {runtime} cannot run {info.name!r}: {error}") from error


def _opened(runtime: str, directory: Path, info: ModelInfo, precision: str, threads: int) -> Engine:
    with graphs_of(directory) as graphs:
        opened = (GRAPHS[runtime](graphs, part, precision, threads) for part in (ENCODER, DECODER))
        name = f"{runtime} {precision}, {threads} thread" + "s" * (threads > 1)
        engine = GraphEngine(*opened, name=name, at_once=AT_ONCE)
        check(engine, info.image, graphs, tolerance=TOLERANCES[precision])
    return engine


def _onnxruntime(directory: Path, part: str, _precision: str, threads: int) -> Graph:
    from captioner.engines.onnxruntime_graph import OnnxRuntimeGraph

    return OnnxRuntimeGraph(directory / graph_name(part), threads=threads)


def _openvino(directory: Path, part: str, precision: str, threads: int) -> Graph:
    from captioner.engines.openvino_graph import ARITHMETIC, OpenVinoGraph

    # Kept in the user's own cache alone: what is compiled is code.
    cache = directory / "compiled" if is_cached(directory) else None
    arithmetic = ARITHMETIC[precision][part]
    return OpenVinoGraph(directory / graph_name(part), arithmetic=arithmetic, threads=threads, cache=cache)


GRAPHS: dict[str, Callable[[Path, str, str, int], Graph]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def _accelerator() -> bool:
    """Whether torch has something faster than the CPU here. Where nothing hints at it, torch is not even imported."""
    hints = Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()  # the drivers of NVIDIA and AMD
    if not (hints or sys.platform == "win32" or (sys.platform == "darwin" and platform.machine() == "arm64")):
        return False
    if not find_spec("torch"):
        return False
    from captioner.engines.torch_engine import pick_device

    return pick_device().type != "cpu"
