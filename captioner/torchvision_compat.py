"""Lets torchvision be imported beside a torch of another build. Import this module before torchvision.

torchvision's compiled operators are tied to one build of torch: beside a CPU torch, the registry's CUDA build of
torchvision does not load them, and ``import torchvision`` then fails with «operator torchvision::nms does not
exist», because it describes those operators to torch's compiler without checking that they are there. Models,
feature extraction and transforms need none of them, so declaring the two names is enough. Where the real
operators load, nothing is declared.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

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
