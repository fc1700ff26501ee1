"""Which engines are installed here, and which tests cannot do without the others.

A test file, or a folder's ``conftest.py``, that imports a missing engine, be it through other files, is left out as a
whole and reported as skipped: tests/conftest.py asks :func:`missing`. A single test that needs one is marked with
:data:`needs_torch`, :data:`needs_runtime` or :data:`needs_both_runtimes`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from captioner.runtimes import RUNTIMES

TESTS = Path(__file__).parent
ROOTS = (TESTS.parent, TESTS, TESTS.parent / "benchmarks")  # where modules of this project are found
TORCH = ("torch", "torchvision", "onnx")  # which export together
PACKAGES = frozenset((*TORCH, *RUNTIMES))
OF_PACKAGES = {"safetensors.torch": "torch"}  # modules of other packages that import one of these
MISSING = frozenset(package for package in PACKAGES if not find_spec(package))
INSTALLED = [runtime for runtime in RUNTIMES if runtime not in MISSING]


def spell(packages: frozenset[str]) -> str:
    """A reason to skip."""
    return f"not installed: {', '.join(sorted(packages))}"


# To try a test with each runtime; those that are missing are skipped.
EACH_RUNTIME = [
    pytest.param(name, marks=pytest.mark.skipif(name in MISSING, reason=spell(frozenset((name,))))) for name in RUNTIMES
]
HAS_TORCH = not MISSING.intersection(TORCH)
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason=spell(MISSING.intersection(TORCH)))
needs_runtime = pytest.mark.skipif(not INSTALLED, reason=spell(MISSING.intersection(RUNTIMES)))
needs_both_runtimes = pytest.mark.skipif(len(INSTALLED) < 2, reason=spell(MISSING.intersection(RUNTIMES)))


def missing(path: Path) -> frozenset[str]:
    """The packages that are not installed, of those that importing a file needs."""
    return MISSING and MISSING & needed(path)


def needed(path: Path) -> frozenset[str]:
    """The engines' packages that are imported with a file: by itself, or by what it imports of this project."""
    found: set[str] = set()
    seen: set[Path] = set()
    waiting = {path}
    while waiting:
        file = waiting.pop()
        seen.add(file)
        packages, files = imported(file)
        found |= packages
        waiting |= files - seen
    return frozenset(found)


@cache
def imported(path: Path) -> tuple[frozenset[str], frozenset[Path]]:
    """What a file imports when it is imported itself: engines' packages, and files of this project.

    Functions import later, and only when they are called; an import that is tried may fail.
    """
    names = set(_imports(ast.parse(path.read_text(encoding="utf-8"))))
    wholes = names | {name.rpartition(".")[0] for name in names}
    packages = {OF_PACKAGES.get(whole, whole.partition(".")[0]) for whole in wholes}
    return PACKAGES & packages, frozenset(file for name in names for file in _files(name, path.parent))


def _imports(tree: ast.AST) -> Iterator[str]:
    """The names that a module's statements import, in full: those of modules, and of what is taken from them."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{name.name}" for name in names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Try() | ast.expr():
                pass
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass
            case _:
                yield from _imports(node)


def _files(name: str, beside: Path) -> Iterator[Path]:
    """The files of this project that importing a module runs: its own and those of the packages around it."""
    parts = name.split(".")
    for root in (*ROOTS, beside):
        if (root / parts[0]).with_suffix(".py").is_file() or (root / parts[0]).is_dir():
            for length in range(1, len(parts) + 1):
                path = root.joinpath(*parts[:length])
                yield from filter(Path.is_file, (path.with_suffix(".py"), path / "__init__.py"))
