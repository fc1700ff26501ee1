"""An ONNX graph as rewriting sees it: nodes, constants, and products with constant matrices.

Shapes: I and O widths of what goes into a product and comes out.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from captioner.engines import Array, FloatArray


@dataclass(frozen=True)
class Product:
    """``output = given · weight + bias``: a node, or what becomes one.

    Attributes:
        given, output: names of values.
        weight: (I, O).
        bias: (O,), if any; then what is given has two axes.
    """

    given: str
    output: str
    weight: FloatArray
    bias: FloatArray | None


class OnnxGraph:
    """A graph's nodes in an order in which they can be computed, and its constants by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.outputs = {output.name for output in model.graph.output}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self.nodes.append(node)
        known = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self._shapes = {  # with None for lengths that may differ
            value.name: [
                axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim
            ]
            for value in (*known.value_info, *known.input, *known.output)
        }

    def constant(self, value: Array) -> str:
        """The name of a new constant."""
        name = next(name for number in itertools.count() if (name := f"constant_{number}") not in self.constants)
        self.constants[name] = value
        return name

    def maker(self, name: str, operation: str) -> onnx.NodeProto | None:
        """The node that a value comes from, if that is one of such an operation."""
        return next((node for node in self.nodes if node.op_type == operation and name in node.output), None)

    def widths(self, joined: onnx.NodeProto, total: int) -> list[int] | None:
        """Of values that a node puts side by side along their last axis, together so wide; None where they have others.

        At most one of them need not be known.
        """
        shapes = [self._shapes.get(name, []) for name in joined.input]
        if axis_of(joined) != -1 and any(axis_of(joined) != len(shape) - 1 for shape in shapes):
            return None
        widths = [shape[-1] if shape else None for shape in shapes]
        rest = total - sum(width or 0 for width in widths)
        if widths.count(None) > 1 or rest < 0 or (rest > 0 and None not in widths):
            return None
        return [rest if width is None else width for width in widths]

    def product(self, node: onnx.NodeProto) -> Product | None:
        """A node as a product with a constant matrix, if it is one."""
        if node.op_type not in ("Gemm", "MatMul") or getattr(self.constants.get(node.input[1]), "ndim", 0) != 2:
            return None
        weight, bias = self.constants[node.input[1]], None
        if node.op_type == "Gemm":
            settings = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            if settings.get("transA", 0) or settings.get("alpha", 1) != 1 or settings.get("beta", 1) != 1:
                return None
            weight = weight.T if settings.get("transB", 0) else weight
            bias = self.constants.get(node.input[2]) if len(node.input) > 2 else None
            if len(node.input) > 2 and (bias is None or bias.shape != weight.shape[1:]):
                return None
        return Product(node.input[0], node.output[0], weight, bias)

    def node(self, product: Product) -> onnx.NodeProto:
        """A product as a node."""
        if product.bias is None:
            return helper.make_node("MatMul", [product.given, self.constant(product.weight)], [product.output])
        inputs = [product.given, self.constant(np.ascontiguousarray(product.weight.T)), self.constant(product.bias)]
        return helper.make_node("Gemm", inputs, [product.output], transB=1)

    def call(self, name: str, new: str) -> bool:
        """Give a value another name; whether that may be done: an input, a constant and an output have theirs."""
        if name in self.outputs or not any(name in node.output for node in self.nodes):
            return False
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [new if one == name else one for one in names]
        return True

    def scalar(self, name: str) -> int | None:
        """The only element of a constant; None where it is something else."""
        value = self.constants.get(name)
        return int(value.item()) if value is not None and value.size == 1 else None

    def picked(self, node: onnx.NodeProto) -> int | None:
        """Which element a node picks along an axis, always the same one; None where it does something else."""
        number = self.constants.get(node.input[1]) if node.op_type == "Gather" else None
        return int(number) if number is not None and number.ndim == 0 else None

    def length(self, name: str, axis: int) -> int:
        """Of one axis of a value; 0 where it is not known."""
        shape = self._shapes.get(name, [])
        return (shape[axis] or 0) if -len(shape) <= axis < len(shape) else 0

    def write_back(self) -> None:
        """Bring the model up to date, without what nobody reads."""
        wanted = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(node.input)
        graph = self.model.graph
        for parts in (graph.node, graph.initializer, graph.value_info):
            del parts[:]
        graph.node.extend(reversed(kept))
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value) if value.ndim else value, name)
            for name, value in self.constants.items()
            if name in wanted
        )


def axis_of(node: onnx.NodeProto) -> int:
    """The axis that a node is about."""
    return next((one.i for one in node.attribute if one.name == "axis"), 0)
