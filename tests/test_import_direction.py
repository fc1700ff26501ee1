"""The house's doors: ``service -> captioner <- training``, and inside the library from the ground up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("captioner", "service", "training")
COMPOSITION_ROOT = "captioner.cli"

# The library from the ground up: a module may import what stands before it. A package counts as one module.
FLOORS = [
    "captioner.errors",
    "captioner.cores",
    "captioner.config",
    "captioner.tokens",
    "captioner.phones",
    "captioner.draft",
    "captioner.heif",
    "captioner.grey",
    "captioner.images",
    "captioner.metadata",
    "captioner.torchvision_compat",
    "captioner.encoder",
    "captioner.model",
    "captioner.engines",
    "captioner.decoding",
    "captioner.formats",
    "captioner.checkpoint",
    "captioner.graphs",
    "captioner.rewriting",
    "captioner.export",
    "captioner.ngrams",
    "captioner.reading",
    "captioner.prefetch",
    "captioner.results",
    "captioner.captioner",
    "captioner.runtimes",
    "captioner.loading",
    "captioner.attention",
    "captioner.dictionary",
    "captioner.prosody",
    "captioner.chunks",
    "captioner.sound",
    "captioner.espeak",
    "captioner.speech",
    "captioner.pronunciation",
    "captioner",
    "captioner.flags",
    "captioner.batch",
    "captioner.commands",
    "captioner.cli",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Every module of this project that a file imports, at run time or for type checking, wherever it stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module
            # `from captioner import images` names a module, `from captioner import load` does not.
            children = {f"{node.module}.{name.name}" for name in node.names}
            modules = {child for child in children if is_module(child)}
            found |= modules if modules == children else modules | {node.module}
    return {name for name in found if name.split(".")[0] in ROOMS}


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def floor_of(module: str) -> int:
    parts = module.split(".")
    name = next(name for length in (2, 1) if (name := ".".join(parts[:length])) in FLOORS)
    return FLOORS.index(name)


SOURCES = {module_name(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def test_the_rooms_are_all_here() -> None:
    assert {name.split(".")[0] for name in SOURCES} == set(ROOMS)


@pytest.mark.parametrize("module", SOURCES)
def test_rooms_import_one_way(module: str) -> None:
    room = module.split(".", maxsplit=1)[0]
    others = {name for name in imports(SOURCES[module]) if name.split(".")[0] != room}
    allowed = set(ROOMS) if module == COMPOSITION_ROOT else {"captioner"}
    assert {name.split(".")[0] for name in others} <= allowed, f"{module} imports {sorted(others)}"


@pytest.mark.parametrize("module", [name for name in SOURCES if name.startswith("captioner")])
def test_the_library_imports_downwards(module: str) -> None:
    mine = floor_of(module)
    upwards = {name for name in imports(SOURCES[module]) if name.startswith("captioner") and floor_of(name) > mine}
    assert not upwards, f"{module} imports from above: {sorted(upwards)}"


@pytest.mark.parametrize("module", [name for name in SOURCES if name.startswith("captioner.decoding")])
def test_decoding_knows_no_framework(module: str) -> None:
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in names} & {"torch", "torchvision", "onnxruntime", "openvino"}
