"""torchvision beside a torch of another build. Each case needs an interpreter of its own, before any import."""

from __future__ import annotations

import subprocess
import sys

from installed import needs_torch

pytestmark = needs_torch

GRID = """
import torch
from captioner.encoder import GridEncoder
from torchvision.models import get_model
with torch.no_grad():
    assert GridEncoder("resnet18").eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 512)
print(torch.ops.torchvision.nms.default._schema)
"""

# Refuse every library of torchvision, as the loader does when it was built for another torch.
FOREIGN = """
import torch
def refuse(path):
    raise OSError(path)
torch.ops.load_library = refuse
from captioner import torchvision_compat
assert hasattr(torchvision_compat, "_DECLARED")
"""


def run(program: str) -> str:
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_encoders_work_with_the_torchvision_that_is_here() -> None:
    assert run(GRID).startswith("torchvision::nms(Tensor dets, Tensor scores, float iou_threshold)")


def test_encoders_work_with_a_torchvision_of_another_build() -> None:
    assert run(FOREIGN + GRID).startswith("torchvision::nms(Tensor dets, Tensor scores, float iou_threshold)")


def test_real_operators_are_left_alone() -> None:
    # A stand-in for a library that loads: it declares its operators itself, and a second declaration would fail.
    # torchvision itself is left unexecuted, for it would miss the other operators.
    program = """
import importlib.util, sys, torch
sys.modules["torchvision"] = importlib.util.module_from_spec(importlib.util.find_spec("torchvision"))
kept = torch.library.Library("torchvision", "DEF")
def load(path):
    if path.rpartition("/")[2].startswith("_C."):
        kept.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.ops.load_library = lambda path: None
torch.ops.load_library = load
from captioner import torchvision_compat
print(hasattr(torchvision_compat, "_DECLARED"))
"""
    assert run(program) == "False\n"


def test_the_compiler_is_imported_when_it_is_needed_and_not_before() -> None:
    program = """
import sys
import captioner
from PIL import Image
assert captioner.load("words", engine="torch", device="cpu")(Image.new("RGB", (8, 8))).text
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
from torchvision.ops import roi_align
print(roi_align.__globals__["is_compile_supported"]("cpu") in (True, False))
import torch._dynamo
print(torch._dynamo.__file__ is not None, torch._dynamo.utils is sys.modules["torch._dynamo.utils"])
"""
    assert run(program) == "True\nTrue True\n"


def test_the_compiler_is_there_for_whoever_wants_more_of_it_meanwhile() -> None:
    program = """
from captioner import torchvision_compat
import sys
sys.modules["torch._dynamo"] = torchvision_compat._Deferred("torch._dynamo")
from torch._dynamo.utils import counters
from torch._dynamo import optimize
print(type(counters).__name__, optimize.__module__, type(sys.modules["torch._dynamo"]).__name__)
"""
    assert run(program) == "defaultdict torch._dynamo.eval_frame module\n"
