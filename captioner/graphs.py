"""Where the exported graphs of a model are, how they come to be there, and whether they compute what they should.

They are looked for in the model's own directory, where ``captioner export`` puts them, then in the user's cache, which
is filled at first use by a process of its own: neither torch nor anything else of :mod:`captioner.export` is imported
here. A set of graphs is a directory named after a hash of the model and of what exports it, so that a changed model
never meets old graphs; it is written under another name and renamed when complete, so that it is there as a whole or
not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import platformdirs

from captioner.checkpoint import CONFIG_NAME, WEIGHTS_NAME
from captioner.config import ImageConfig
from captioner.engines import Array, Engine, FloatArray
from captioner.engines.graph_engine import DECODER, ENCODER
from captioner.errors import DependencyError, ModelError
from captioner.tokens import Vocabulary

try:
    import fcntl
except ImportError:  # Windows: processes that start together may each export, and one of them is kept
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

# What the graphs are traced from and by.
SOURCES = (
    "graphs.py",
    "model.py",
    "encoder.py",
    "export.py",
    "engines/torch_engine.py",
    "rewriting/graph.py",
    "rewriting/fusion.py",
    "rewriting/quantisation.py",
    "engines/graph_engine.py",
)
FOLDER = "graphs"
ANSWER_NAME = "answer.safetensors"
CACHE_VARIABLE = "CAPTIONER_CACHE"
KEPT = 30  # days
LIKELIEST = 3  # tokens in what an engine computes of the probe


def graph_name(part: str, *, quantised: bool = False) -> str:
    """The file of the encoder or the decoder; of the decoder there is one with its matrices in 8 bits, too."""
    return f"{part}.int8.onnx" if quantised else f"{part}.onnx"


FILES = (ANSWER_NAME, graph_name(ENCODER), graph_name(DECODER), graph_name(DECODER, quantised=True))


def probe(image: ImageConfig) -> FloatArray:
    """A picture that shows nothing, the same everywhere: (1, 3, H, W) from -2 to 2."""
    count = 3 * image.height * image.width
    waves = np.sin(np.arange(count, dtype=np.float64) ** 1.5)
    return (2 * waves).astype(np.float32).reshape(1, 3, image.height, image.width)


def examine(engine: Engine, image: ImageConfig) -> dict[str, Array]:
    """What an engine computes of the probe: its summary, alone and as one of two; what two rows are offered then."""
    pixels = probe(image)
    grid = engine.encode(pixels)
    state = engine.select(engine.start(grid), np.array([0, 0]))
    _, state, _ = engine.step(np.full(2, Vocabulary.bos), state, grid)
    tokens = np.array([Vocabulary.eos, Vocabulary.unk])
    (log_probs, _), _, weights = engine.step(tokens, state, grid)
    (told, best), _, _ = engine.step(tokens, state, grid, LIKELIEST)
    assert best is not None
    found = {
        "summary": engine.summary(grid),
        "summary_of_two": engine.summary(engine.encode(pixels.repeat(2, axis=0))),
        "log_probs": log_probs - log_probs.mean(axis=1, keepdims=True),  # whose means are large and much the same
        "best_log_probs": told,
        "log_probs_of_best": np.take_along_axis(log_probs, best, axis=1),
        "weights": weights,
    }
    return {name: np.ascontiguousarray(array) for name, array in found.items()}  # safetensors knows no strides


def check(engine: Engine, image: ImageConfig, directory: Path, *, tolerance: float) -> None:
    """Let an engine compute what its graphs came with.

    Args:
        engine: runs the graphs.
        image: the size of the model's pictures.
        directory: of the graphs.
        tolerance: how much the differences may be, as a share of what is expected (both as lengths of vectors).

    Raises:
        ModelError: it computes something else.
    """
    from safetensors.numpy import load_file

    expected = load_file(directory / ANSWER_NAME)
    for name, found in examine(engine, image).items():
        error = float(np.linalg.norm(found - expected[name]) / np.linalg.norm(expected[name]))
        if not error <= tolerance:  # not a number is no answer either
            raise ModelError(f"{engine.name} computes {name} wrongly here, by {error:.2g} of its size")


@contextlib.contextmanager
def graphs_of(model: Path) -> Iterator[Path]:
    """The directory of a model's graphs: exported before, or now.

    Where nothing can be kept they are written to a temporary directory, for as long as the context lasts.

    Raises:
        DependencyError: torch, which exports them, is not installed.
        ModelError: they cannot be exported, or not be written.
    """
    key = _key(model)
    if _complete(model / FOLDER / key):
        yield model / FOLDER / key
        return
    try:
        made = make(model, cache_directory())
        with contextlib.suppress(OSError):
            os.utime(made)  # still in use
    except OSError as error:
        log.warning(
            "The graphs of %s cannot be kept: %s. They are exported anew for each process, until captioner export has "
            "put them beside the model, or %s names a directory that can be written",
            model, error, CACHE_VARIABLE,
        )  # fmt: skip
        with contextlib.ExitStack() as stack:
            try:
                made = make(model, Path(stack.enter_context(tempfile.TemporaryDirectory())))
            except OSError as problem:
                raise ModelError(f"the graphs of {model} cannot be written anywhere: {problem}") from problem
            yield made
    else:
        yield made


def make(model: Path, root: Path) -> Path:
    """Export a model's graphs into a directory of their own below ``root``, unless they are there; return that.

    Several processes may do so at once: the first works, the others wait for it.

    Raises:
        DependencyError: torch, which exports them, is not installed.
        OSError: they cannot be written.
        ModelError: they cannot be exported.
    """
    key = _key(model)
    made = root / key
    if _complete(made):
        return made
    require_torch(model)
    root.mkdir(mode=0o755 if root.parent == model else 0o700, parents=True, exist_ok=True)
    with _lock(root / ".lock"):
        if _complete(made):  # another process was first
            return made
        if made.exists():  # cleaned up in part, or cut off with the power
            shutil.rmtree(made)
        log.info("Exporting the graphs of %s to %s; it takes some ten seconds", model, made)
        partial = Path(tempfile.mkdtemp(prefix=f"{made.name}.", dir=root))
        try:
            done = _run_export(model, partial)
            if done.returncode:
                said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
                raise ModelError(f"the graphs of {model} cannot be exported: {said[-1]}")
            if _key(model) != key:
                raise ModelError(f"the model {model} was changed while it was exported: try again")
            for path in (*partial.iterdir(), partial):  # made for one user alone
                path.chmod(0o755 if path.is_dir() else 0o644)
            partial.rename(made)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    _forget_unused(root)
    return made


def cache_directory() -> Path:
    """Where graphs are kept for the user: ``CAPTIONER_CACHE``, or the system's place for such things.

    Raises:
        OSError: there is no such place, as the user has no home.
    """
    own = os.environ.get(CACHE_VARIABLE)
    try:
        cache = Path(own) if own else platformdirs.user_cache_path("captioner", appauthor=False)
    except RuntimeError as error:  # a user without a home
        raise OSError(f"there is no place for a cache: {error}") from error
    if not (own or cache.is_absolute()):
        raise OSError(f"there is no place for a cache: the home directory is {cache}")
    return cache / FOLDER


def is_cached(directory: Path) -> bool:
    """Whether a set of graphs lies in the user's cache."""
    try:
        return directory.parent == cache_directory()
    except OSError:
        return False


def require_torch(model: Path) -> None:
    """Raise :class:`DependencyError` where torch is not installed, or what it exports with."""
    missing = [package for package in ("torch", "torchvision", "onnx") if not find_spec(package)]
    if missing:
        raise DependencyError(
            f"the graphs of {model} are not here, and to export them {', '.join(missing)} would have to be installed: "
            "run captioner export where torch is, or install it with pip install 'captioner[torch]'"
        )


def _run_export(model: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run :mod:`captioner.export` as this very package, whatever lies in the working directory."""
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-P", "-m", "captioner.export", str(model.resolve()), str(directory)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


def _complete(directory: Path) -> bool:
    """Whether a set of graphs is there as a whole; not where this user may not look."""
    try:
        return all((directory / name).is_file() for name in FILES)
    except OSError:
        return False


def _key(model: Path) -> str:
    """A hash of all that the graphs depend on: the model, and the code that they are traced from.

    Raises:
        ModelError: a file of the model cannot be read.
    """
    config = json.loads((model / CONFIG_NAME).read_text(encoding="utf-8"))
    plan = json.dumps([config["model"], config["image"]], sort_keys=True)
    digest = hashlib.sha256(plan.encode())
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    try:
        digest.update((model / WEIGHTS_NAME).read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read the weights {model / WEIGHTS_NAME}: {error}") from error
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keep other processes waiting, where the system can."""
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_unused(root: Path) -> None:
    """Remove what was not loaded for :data:`KEPT` days, and what was left half done."""
    oldest = time.time() - KEPT * 24 * 60 * 60
    for directory in root.iterdir():
        with contextlib.suppress(OSError):  # another process may do the same
            if directory.is_dir() and directory.stat().st_mtime < oldest:
                shutil.rmtree(directory)
