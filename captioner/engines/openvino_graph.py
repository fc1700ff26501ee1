"""Graphs under OpenVINO, in full precision or less."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, NamedTuple

import numpy as np

from captioner.engines import Array
from captioner.engines.graph_engine import Parts

# Else it notes an id of the user and reports each import to its maker; without that package it does neither.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import opset13 as operations  # noqa: E402
from openvino.preprocess import PrePostProcessor  # noqa: E402

LEAST = 10_000  # weights of a matrix that is worth storing in 8 bits
GROUP = 64  # values of a row that share a scale when they are quantised for a product


class Arithmetic(NamedTuple):
    """What a graph computes in."""

    hint: str  # OpenVINO's name for the type of its values
    quantised: bool = False  # whether its matrices are in 8 bits, and what they are multiplied with is rounded too


ARITHMETIC = {"fp32": Arithmetic("f32"), "bf16": Arithmetic("bf16"), "int8": Arithmetic("f32", quantised=True)}


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
        threads: that the calls may use together.
        lanes: how many calls are computed side by side, each by its share of the threads.
        images: how many at a time, where it is always the same number: that saves what finding out takes at every call.
        bf16_ports: inputs and outputs that are in bf16, as they are computed. numpy has no such type: their arrays are
            said to be float16, are nobody's to compute with, and are for another such graph.
        cache: a directory that keeps what was compiled, for the next process; None keeps nothing.
    """

    def __init__(
        self,
        path: Path,
        *,
        arithmetic: Arithmetic,
        threads: int,
        lanes: int = 1,
        images: int | None = None,
        bf16_ports: Set[str] = frozenset(),
        cache: Path | None = None,
    ) -> None:
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": arithmetic.hint,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": lanes,
            "ENABLE_CPU_PINNING": False,  # several processes would pin themselves to the same cores
        }
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        core = _core()
        if arithmetic.quantised or bf16_ports or images:
            model = core.read_model(path)
            if arithmetic.quantised:
                settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = GROUP
                quantise_matrices(model)
            if images:
                model.reshape({name: [images, *shape[1:]] for name, shape in _shapes(model).items()})
            self._compiled = core.compile_model(set_bf16_ports(model, bf16_ports), "CPU", settings)
        else:
            self._compiled = core.compile_model(path, "CPU", settings)  # which need not read it if it was compiled
        self.inputs = tuple(map(_name, self._compiled.inputs))
        self.outputs = tuple(map(_name, self._compiled.outputs))
        self._places = {name: number for number, name in enumerate(self.outputs)}
        self._requests: LifoQueue[Any] = LifoQueue()

    def __call__(self, values: Mapping[str, Array], outputs: Sequence[str]) -> Parts:
        """See :class:`captioner.engines.graph_engine.Graph`."""
        try:
            request = self._requests.get_nowait()
        except Empty:  # all of them are at work for other threads
            request = self._compiled.create_infer_request()
        try:
            given = [np.asarray(values[name], order="C") for name in self.inputs]  # kept until it has been read
            for number, value in enumerate(given):  # one by one: what infer() does with them takes longer
                request.set_input_tensor(number, _tensor(value))
            request.infer(share_outputs=True)
            return {name: np.array(request.get_output_tensor(self._places[name]).data) for name in outputs}
        finally:
            self._requests.put(request)


def quantise_matrices(model: openvino.Model) -> None:
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
        quantised = operations.constant(np.rint(weights / scales).astype(np.int8))
        restored = operations.multiply(operations.convert(quantised, "f32"), operations.constant(scales))
        operation.input(1).replace_source_output(restored.output(0))


def set_bf16_ports(model: openvino.Model, names: Set[str]) -> openvino.Model:
    """Let those inputs and outputs of a model that have such names be of type bf16."""
    steps = PrePostProcessor(model)
    for ports, step in ((model.inputs, steps.input), (model.outputs, steps.output)):
        for name in names & set(map(_name, ports)):
            step(name).tensor().set_element_type(openvino.Type.bf16)
    return steps.build()


def _shapes(model: openvino.Model) -> dict[str, list[int]]:
    """The shapes of a model's inputs by name; only their first length may differ, and is left out as -1."""
    return {
        _name(port): [axis.get_length() if axis.is_static else -1 for axis in port.get_partial_shape()]
        for port in model.inputs
    }


def _tensor(value: Array) -> openvino.Tensor:
    """An array as the runtime sees it, without a copy."""
    if value.dtype == np.float16:  # which it is not, see set_bf16_ports
        return openvino.Tensor(value.view(np.uint16), openvino.Shape(value.shape), openvino.Type.bf16)
    return openvino.Tensor(value, shared_memory=True)


def _name(port: Any) -> str:
    """What the exported file calls an input or output; names that compiling adds are paths."""
    return next(str(name) for name in port.get_names() if "/" not in name)
