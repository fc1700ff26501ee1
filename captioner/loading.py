"""From a model's name to a captioner: finds the directory, chooses what runs the network, tells why."""

from __future__ import annotations

import contextlib
import logging
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

from captioner.captioner import Captioner
from captioner.checkpoint import ModelInfo, read_info, resolve
from captioner.config import is_whole, require
from captioner.cores import usable_cores
from captioner.decoding.expectation import Expectation
from captioner.engines import Engine
from captioner.errors import CaptionerError, DependencyError, ModelError
from captioner.graphs import graphs_of
from captioner.reading import WordReader
from captioner.runtimes import GRAPH_ENGINES, open_engine

log = logging.getLogger(__name__)

AUTO, TORCH = "auto", "torch"
OFFERED = {TORCH: ("fp32", "bf16")} | {name: tuple(precisions) for name, precisions in GRAPH_ENGINES.items()}
ENGINES = (AUTO, *OFFERED)
PRECISIONS = ("fp32", "bf16", "int8")


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
            ``openvino`` or, with a part for each, ``mixed``; ``auto`` takes what works here of these and is fastest for
            one picture, or else torch. The first time that one of them meets a model, torch exports it, which takes
            some seconds; see :mod:`captioner.graphs`.
        device: for torch: ``cpu``, ``cuda``, ``mps``; by default the best one here.
        precision: ``fp32``; or, where there is an engine for it, faster and less exact: ``bf16``, or ``int8`` for the
            decoder's matrices, beside an encoder in bf16 or, under ``onnxruntime``, in fp32.
        threads: that the network may use on the CPU; by default as many as there are cores, see
            :func:`captioner.cores.usable_cores`. Torch has one number for the process, which is changed only if one is
            given.

    Raises:
        ModelError: there is no such model, or it is broken.
        OptionError: the engine, device or precision is unknown, or does not go with the others.
        DependencyError: the engine that was asked for is not installed.
    """
    require(threads is None or (is_whole(threads) and threads >= 1), f"threads must be at least 1, not {threads!r}")
    directory = resolve(model)
    info = read_info(directory)
    runs, reason = choose(directory, info, engine, device, precision, threads)
    return Captioner(runs, info, WordReader.load(directory), Expectation.load(directory), reason=reason)


def choose(
    directory: Path, info: ModelInfo, engine: str, device: str | None, precision: str, threads: int | None
) -> tuple[Engine, str]:
    """The engine that runs a model, and in a few words why this one. Arguments and errors as for :func:`load`."""
    require(engine in ENGINES, f"unknown engine {engine!r}; choose one of {', '.join(ENGINES)}")
    require(precision in PRECISIONS, f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    require_offered(engine, precision)
    if engine in GRAPH_ENGINES:
        require(device in (None, "cpu"), f"engine {engine} runs on the CPU alone: leave the device out")
        _require_packages(engine)
        with graphs_of(directory) as graphs:
            return _open(engine, graphs, info, precision, threads or usable_cores()), "asked for"
    if engine == TORCH:
        return _torch(directory, device, precision, threads), "asked for"
    torchs = precision in OFFERED[TORCH]
    if device not in (None, "cpu"):
        require(torchs, f"{precision} is for the CPU alone: leave the device out")
        return _torch(directory, device, precision, threads), f"device {device} was asked for"
    if device is None and torchs and _accelerator():
        return _torch(directory, device, precision, threads), "there is an accelerator"
    runs, obstacles = _first_that_works(directory, info, precision, threads or usable_cores())
    if runs is not None:
        return runs, "; ".join(["the first that works here", *map(str, obstacles)])
    if torchs:
        try:
            return _torch(directory, device, precision, threads), "; ".join(map(str, obstacles))
        except DependencyError as error:
            obstacles.append(error)
    absent = all(isinstance(obstacle, DependencyError) for obstacle in obstacles)
    raise (DependencyError if absent else ModelError)("; ".join(dict.fromkeys(map(str, obstacles))))


def _first_that_works(
    directory: Path, info: ModelInfo, precision: str, threads: int
) -> tuple[Engine | None, list[CaptionerError]]:
    """Of the engines of graphs that compute in a precision the first that works, if one does; what ails the others."""
    obstacles: list[CaptionerError] = []
    graphs: Path | None = None
    with contextlib.ExitStack() as stack:
        for name in (name for name, precisions in GRAPH_ENGINES.items() if precision in precisions):
            try:
                _require_packages(name)
            except DependencyError as error:
                obstacles.append(error)
                continue
            try:
                graphs = graphs or stack.enter_context(graphs_of(directory))
                return _open(name, graphs, info, precision, threads), obstacles
            except CaptionerError as error:  # whatever ails a runtime, torch still works
                log.warning("%s", error)
                obstacles.append(error)
                if graphs is None:  # there are none, for any of them
                    break
    return None, obstacles


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


def _require_packages(engine: str) -> None:
    """Raise :class:`DependencyError` where an engine is not installed."""
    if missing := _missing(engine):
        brings = f"pip install 'captioner[{','.join(missing)}]' brings it"
        raise DependencyError(f"engine {engine} is not installed: {brings}")


def _torch(directory: Path, device: str | None, precision: str, threads: int | None) -> Engine:
    try:
        from captioner.checkpoint import load_model
        from captioner.engines.torch_engine import TorchEngine

        network, _ = load_model(directory)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision"):
            raise
        raise DependencyError("engine torch is not installed: pip install 'captioner[torch]' brings it") from error
    runs = TorchEngine(network, device=device, precision=precision)
    if threads is not None:
        runs.use_cores(threads)
    return runs


def _open(name: str, graphs: Path, info: ModelInfo, precision: str, threads: int) -> Engine:
    """An engine of graphs, checked.

    Raises:
        ModelError: it cannot run them, or computes something else than it should.
    """
    try:
        return open_engine(graphs, name, info.image, precision, threads)
    except CaptionerError:
        raise
    except Exception as error:  # each runtime has its own exceptions; to the caller they are one
        reason = " ".join(str(error).split())
        raise ModelError(
            f"engine {name} cannot run {info.name!r}: {reason}. If a file in {graphs} is damaged, remove that folder: "
            "graphs that are missing are exported anew"
        ) from error


def _accelerator() -> bool:
    """Whether torch has something faster than the CPU here. Where nothing hints at it, torch is not even imported."""
    hints = Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()  # the drivers of NVIDIA and AMD
    if not (hints or sys.platform == "win32" or (sys.platform == "darwin" and platform.machine() == "arm64")):
        return False
    if not find_spec("torch"):
        return False
    from captioner.engines.torch_engine import pick_device

    return pick_device().type != "cpu"
