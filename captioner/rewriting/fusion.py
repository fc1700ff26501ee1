"""Fewer and larger products: a graph rearranged, so that it computes the same at less cost.

A decoder's step multiplies a few rows by some ten matrices, and waits for them to come from memory one after the other.
What a product says of an embedded token is the same at every step and is looked up in a table; products of one input
become one product; what is computed twice is computed once. The graph is a torch export of a network of the family in
:mod:`captioner.model`, but nothing here knows which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper

from captioner.rewriting.graph import OnnxGraph, Product, axis_of

LARGEST_TABLE = 32 * 2**20  # bytes that a table of products may take


def fuse(model: onnx.ModelProto) -> None:
    """Rearrange a graph, in place."""
    graph = OnnxGraph(model)
    shorten(graph)
    eliminate_common_subexpressions(graph)
    split_products(graph)
    look_up_products(graph)
    unite_products(graph)
    graph.write_back()


def shorten(graph: OnnxGraph) -> None:
    """Leave out the ways by which torch goes from one shape to another and back."""
    names = dict[str, str]()
    for node in list(graph.nodes):
        node.input[:] = [names.get(name, name) for name in node.input]
        if (same := _nothing_done(graph, node)) is not None:
            if node.output[0] not in graph.outputs:
                names[node.output[0]] = same
            elif graph.call(same, node.output[0]):  # who asks for it from outside knows that name
                graph.nodes.remove(node)
                names = {name: node.output[0] if read == same else read for name, read in names.items()}
        elif (shorter := _length_as_list(graph, node) or _rows_as_they_are(graph, node)) is not None:
            node.CopyFrom(shorter)


def _nothing_done(graph: OnnxGraph, node: onnx.NodeProto) -> str | None:
    """The value that a node gives as it is: one value side by side with none, the only element along a new axis."""
    if node.op_type == "Concat" and len(node.input) == 1:
        return str(node.input[0])
    before = graph.maker(node.input[0], "Unsqueeze") if node.op_type == "Gather" else None
    if before is None or graph.picked(node) not in (0, -1) or axis_of(node) != graph.scalar(before.input[1]):
        return None
    return str(before.input[0])


def _length_as_list(graph: OnnxGraph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """What gives one length of a shape as a list, in place of a node that makes a list of it."""
    length = graph.maker(node.input[0], "Gather") if node.op_type == "Unsqueeze" else None
    shape = graph.maker(length.input[0], "Shape") if length is not None else None
    if length is None or shape is None or shape.attribute or (place := graph.picked(length)) is None or place < 0:
        return None
    return helper.make_node("Shape", shape.input, node.output, start=place, end=place + 1)


def _rows_as_they_are(graph: OnnxGraph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """What picks rows of a table, in place of a node that takes from them the axis which their numbers were given."""
    rows = graph.maker(node.input[0], "Gather") if node.op_type == "Squeeze" and len(node.input) == 2 else None
    numbers = graph.maker(rows.input[1], "Unsqueeze") if rows is not None else None
    if rows is None or numbers is None or axis_of(rows) != 0:
        return None
    axis = graph.scalar(node.input[1])
    if axis is None or axis < 0 or axis != graph.scalar(numbers.input[1]):
        return None
    return helper.make_node("Gather", [rows.input[0], numbers.input[0]], node.output, axis=0)


def eliminate_common_subexpressions(graph: OnnxGraph) -> None:
    """Compute once what several nodes compute alike."""
    for node in graph.nodes:  # of a known length, the last element has two numbers
        place = graph.picked(node)
        if place is not None and place < 0 and (length := graph.length(node.input[0], axis_of(node))):
            node.input[1] = graph.constant(graph.constants[node.input[1]] + length)
    first: dict[object, str] = {}
    names = {
        name: first.setdefault((array.dtype, array.shape, array.tobytes()), name)
        for name, array in graph.constants.items()
    }
    made: dict[object, onnx.NodeProto] = {}
    kept = []
    for node in graph.nodes:
        inputs = [names.get(name, name) for name in node.input]
        node.input[:] = inputs
        same = made.setdefault((node.op_type, *inputs, *(one.SerializeToString() for one in node.attribute)), node)
        if same is node or graph.outputs.intersection(node.output):
            kept.append(node)
        else:
            names.update(zip(node.output, same.output, strict=True))
    graph.nodes = kept


def split_products(graph: OnnxGraph) -> None:
    """Of a product of several values side by side, make the sum of a product of each."""

    def split(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        product = graph.product(node)
        joined = graph.maker(product.given, "Concat") if product else None
        if product is None or joined is None:
            yield node
            return
        widths = graph.widths(joined, len(product.weight))
        if widths is None:
            yield node
            return
        parts = np.split(product.weight, np.cumsum(widths)[:-1])
        # Some may be of no width at all, such as a state that nothing is fed back to.
        terms = [(given, weight) for given, weight in zip(joined.input, parts, strict=True) if len(weight)]
        sums = [f"{product.output}_sum_{place}" for place in range(len(terms) - 1)] + [product.output]
        for place, (given, weight) in enumerate(terms):
            if place == 0:
                yield graph.node(Product(given, sums[0], weight, product.bias))
                continue
            term = f"{product.output}_term_{place}"
            yield graph.node(Product(given, term, weight, None))
            yield helper.make_node("Add", [sums[place - 1], term], [sums[place]])

    graph.nodes = [part for node in graph.nodes for part in split(node)]


def look_up_products(graph: OnnxGraph) -> None:
    """Keep the products of all rows of a table, where one of them is picked to be multiplied."""

    def look_up(node: onnx.NodeProto) -> onnx.NodeProto:
        product = graph.product(node)
        pick = graph.maker(product.given, "Gather") if product else None
        table = graph.constants.get(pick.input[0]) if pick is not None else None
        if product is None or pick is None or table is None or table.ndim != 2 or axis_of(pick) != 0:
            return node
        if len(table) * product.weight.shape[1] * table.itemsize > LARGEST_TABLE:
            return node
        products = table @ product.weight + (0 if product.bias is None else product.bias)
        return helper.make_node("Gather", [graph.constant(products), pick.input[1]], [product.output], axis=0)

    graph.nodes = [look_up(node) for node in graph.nodes]


def unite_products(graph: OnnxGraph) -> None:
    """Multiply what is given to several matrices by all of them at once."""
    products = {node.output[0]: product for node in graph.nodes if (product := graph.product(node))}
    common = Counter(product.given for product in products.values())
    united: set[str] = set()

    def unite(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        product = products.get(node.output[0])
        if product is None or common[product.given] == 1:
            yield node
        elif product.given not in united:
            united.add(product.given)
            yield from _unite(graph, [one for one in products.values() if one.given == product.given])

    graph.nodes = [part for node in graph.nodes for part in unite(node)]


def _unite(graph: OnnxGraph, products: list[Product]) -> Iterator[onnx.NodeProto]:
    weight = np.concatenate([one.weight for one in products], axis=1)
    bias = None
    if any(one.bias is not None for one in products):
        bias = np.concatenate(
            [np.zeros(one.weight.shape[1], np.float32) if one.bias is None else one.bias for one in products]
        )
    together = f"{products[0].output}_united"
    widths = graph.constant(np.array([one.weight.shape[1] for one in products]))
    yield graph.node(Product(products[0].given, together, weight, bias))
    yield helper.make_node("Split", [together, widths], [one.output for one in products], axis=-1)
