"""A graph with its matrices in 8 bits, and its tables in 16.

Shapes: I and O widths of what goes into a product and comes out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper

from captioner.rewriting.graph import OnnxGraph

BLOCK = 128  # weights that share a scale
LEAST = 10_000  # values of a matrix or a table that is worth quantising
MIDDLE = 128  # what stands for 0 among 8 bits without a sign
CONTRIBUTED = "com.microsoft"  # operators of ONNX Runtime's own
AS_INT8 = 4  # its number for an accuracy


def quantise_products(model: onnx.ModelProto) -> None:
    """Store the matrices of a graph in 8 bits, each block of their inputs with a scale, and its tables in 16; in place.

    The result is for ONNX Runtime. Where they are multiplied, it rounds the other side too, row by row and block by
    block, and computes in whole numbers.
    """
    graph = OnnxGraph(model)

    def quantise(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        product = graph.product(node)
        table = graph.constants.get(node.input[0]) if node.op_type == "Gather" else None
        if table is not None and table.dtype == np.float32 and table.size >= LEAST:
            node.input[0] = graph.constant(table.astype(np.float16))
            picked, node.output[0] = node.output[0], f"{node.output[0]}_half"
            yield node
            yield helper.make_node("Cast", [node.output[0]], [picked], to=onnx.TensorProto.FLOAT)
            return
        if product is None or product.weight.size < LEAST:
            yield node
            return
        width, outputs = product.weight.shape
        blocks = np.zeros((outputs, -(-width // BLOCK), BLOCK), dtype=np.float32)
        blocks.reshape(outputs, -1)[:, :width] = product.weight.T
        scales = np.maximum(np.abs(blocks).max(axis=2), np.finfo(np.float32).tiny) / (MIDDLE - 1)
        quantised = (np.rint(blocks / scales[:, :, None]) + MIDDLE).astype(np.uint8)
        inputs = [product.given, graph.constant(quantised), graph.constant(scales)]
        if product.bias is not None:
            inputs += ["", "", graph.constant(product.bias)]
        settings = {"K": width, "N": outputs, "bits": 8, "block_size": BLOCK, "accuracy_level": AS_INT8}
        yield helper.make_node("MatMulNBits", inputs, [product.output], domain=CONTRIBUTED, **settings)

    graph.nodes = [part for node in graph.nodes for part in quantise(node)]
    graph.write_back()
    model.opset_import.append(helper.make_opsetid(CONTRIBUTED, 1))
