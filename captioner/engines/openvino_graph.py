"""Graphs under OpenVINO, in full precision or less."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, NamedTuple

import numpy as np

from captioner.engines import Array
from captioner.engines.graph_engine import DECODER, ENCODER, Parts

# Else it notes an id of the user and reports each import to its maker; without that package it does neither.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import opset13 as operations  # noqa: E402

LEAST = 10_000  # weights of a matrix that is worth storing in 8 bits
GROUP = 64  # values of a row that share a scale when they are rounded to 8 bits for a product


class Arithmetic(NamedTuple):
    """What a graph computes in."""

    hint: str  # OpenVINO's name for the type of its values
    weights: str = "fp32"  # of its matrices: as they are, or int8, and then what they are multiplied with is int8 too


# An encoder in 8 bits is no faster than one in bf16, and MobileNet's features do not survive it.
ARITHMETIC = {
    "fp32": {ENCODER: Arithmetic("f32"), DECODER: Arithmetic("f32")},
    "bf16": {ENCODER: Arithmetic("bf16"), DECODER: Arithmetic("bf16")},
    "int8": {ENCODER: Arithmetic("bf16"), DECODER: Arithmetic("f32", "int8")},
}


@functools.cache
def _core() -> openvino.Core:
    """The runtime, kept as long as the process.

    It gives the thread that begins it a stack for signals (sigaltstack), and would take that away with the last graph:
    on Linux the next signal, such as Ctrl-C, would then end the process with a segmentation fault.
    """
    return openvino.Core()


class OpenVinoGraph:
    """A graph compiled for this CPU.

    Args:
        path: of an ONNX file.
        arithmetic: what to compute in.
        threads: that a call may use.
        cache: a directory that keeps what was compiled, for the next process; None keeps nothing.
    """

    def __init__(self, path: Path, *, arithmetic: Arithmetic, threads: int, cache: Path | None) -> None:
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": arithmetic.hint,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several processes would pin themselves to the same cores
        }
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        core = _core()
        if arithmetic.weights == "int8":
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = GROUP
            model = core.read_model(path)
            round_matrices(model)
            self._compiled = core.compile_model(model, "CPU", settings)
        else:
            self._compiled = core.compile_model(path, "CPU", settings)  # which need not read it if it was compiled
        self.inputs = tuple(map(_name, self._compiled.inputs))
        self._outputs = tuple(map(_name, self._compiled.outputs))
        self._requests: LifoQueue[Any] = LifoQueue()

    def __call__(self, values: Mapping[str, Array]) -> Parts:
        """See :class:`captioner.engines.graph_engine.Graph`."""
        try:
            request = self._requests.get_nowait()
        except Empty:  # all of them are at work for other threads
            request = self._compiled.create_infer_request()
        try:
            for number, name in enumerate(self.inputs):  # one by one: what infer() does with them takes longer
                value = np.ascontiguousarray(values[name])
                request.set_input_tensor(number, openvino.Tensor(value, shared_memory=True))
            request.infer(share_outputs=True)
            return {name: np.array(request.get_output_tensor(number).data) for number, name in enumerate(self._outputs)}
        finally:
            self._requests.put(request)


def round_matrices(model: openvino.Model) -> None:
    """Store the matrices of a model in 8 bits, with a scale for each of the values that they give.

    Where they are multiplied, OpenVINO then rounds the other side too, a group of values at a time ("dynamic
    quantisation"), and computes in whole numbers.
    """
    for operation in model.get_ops():
        if operation.get_type_name() != "MatMul":
            continue
        constant = operation.input_value(1).get_node()
        if constant.get_type_name() != "Constant" or constant.data.ndim != 2 or constant.data.size < LEAST:
            continue
        weights = constant.data
        axis = 1 if operation.get_attributes()["transpose_b"] else 0
        scales = np.maximum(np.abs(weights).max(axis=axis, keepdims=True), np.finfo(np.float32).tiny) / 127
        rounded = operations.constant(np.rint(weights / scales).astype(np.int8))
        restored = operations.multiply(operations.convert(rounded, "f32"), operations.constant(scales))
        operation.input(1).replace_source_output(restored.output(0))


def _name(port: Any) -> str:
    """What the exported file calls an input or output; names that compiling adds are paths."""
    return next(str(name) for name in port.get_names() if "/" not in name)
