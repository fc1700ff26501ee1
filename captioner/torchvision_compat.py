"""Imports torchvision, beside a torch of another build too, and in good time. Import this module before torchvision.

torchvision's compiled operators are tied to one build of torch: beside a CPU torch, the registry's CUDA build of
torchvision does not load them, and ``import torchvision`` then fails with «operator torchvision::nms does not
exist», because it describes those operators to torch's compiler without checking that they are there. Models,
feature extraction and transforms need none of them, so declaring the two names is enough. Where the real
operators load, nothing is declared.

One module of torchvision imports torch's compiler, for a function that only training detectors with compiled code
calls. That is near a second of a cold start, so the compiler is left out until somebody needs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _load_real_operators() -> bool:
    spec = importlib.util.find_spec("torchvision")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for library in Path(folder).glob("_C.*"):
            try:
                torch.ops.load_library(str(library))
            except OSError:
                continue
            return True
    return False


if not _load_real_operators():
    # The registration lives as long as this object does.
    _DECLARED = torch.library.Library("torchvision", "DEF")
    for _schema in _SCHEMAS:
        _DECLARED.define(_schema)


class _Deferred(ModuleType):
    """Stands in ``sys.modules`` for a module that is not imported before one of its names is asked for."""

    def __getattr__(self, name: str) -> Any:
        # Those who look over all modules ask for such names; the import system asks a package for its path.
        if name.startswith("__") and (name, self.__name__) != ("__path__", "torch._dynamo"):
            raise AttributeError(name)
        if name == "is_compile_supported":
            return lambda device: self._real().is_compile_supported(device)
        return getattr(self._real(), name)

    def _real(self) -> ModuleType:
        _withdraw()
        return importlib.import_module(self.__name__)


def _withdraw() -> None:
    """Leave the place of the modules to themselves."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, _Deferred):
            del sys.modules[name]


def _import_without_compiler() -> None:
    if "torch._dynamo" not in sys.modules:
        for name in ("torch._dynamo", "torch._dynamo.utils"):
            sys.modules[name] = _Deferred(name)
    try:
        importlib.import_module("torchvision")
    finally:
        _withdraw()


_import_without_compiler()
