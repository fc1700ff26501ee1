"""Rearranged graphs: they compute what they did, by fewer products, and leave alone what they do not understand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from untrained import opinionated_model

from captioner.checkpoint import ModelInfo
from captioner.engines import Array
from captioner.engines.graph_engine import DECODER
from captioner.export import export
from captioner.graphs import graph_name
from captioner.rewriting import fusion
from captioner.rewriting.fusion import fuse
from captioner.rewriting.quantisation import quantise_products

WORDS, EMBEDDED, SEEN, HIDDEN, GATES = 7, 3, 2, 4, 8


def constant(name: str, *shape: int) -> onnx.TensorProto:
    """Of random values, always the same ones under a name."""
    random = np.random.default_rng(list(name.encode()))
    return numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)


def number(name: str, *values: int, scalar: bool = False) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values[0] if scalar else values), name)


def cell(*, alpha: float = 1.0, axis: int = -1) -> onnx.ModelProto:
    """As torch exports a step: an embedded token beside what is seen, a state that several matrices multiply."""
    nodes = [
        helper.make_node("Unsqueeze", ["tokens", "one"], ["upright"]),
        helper.make_node("Gather", ["table", "upright"], ["rows"], axis=0),
        helper.make_node("Squeeze", ["rows", "one"], ["embedded"]),
        helper.make_node("Concat", ["embedded", "seen"], ["beside"], axis=axis),
        helper.make_node("Gather", ["hidden", "first"], ["state"], axis=1),
        helper.make_node("Gather", ["hidden", "last"], ["same"], axis=1),
        helper.make_node("Gemm", ["beside", "into", "bias"], ["inward"], transB=1, alpha=alpha),
        helper.make_node("Gemm", ["state", "over", "bias"], ["onward"], transB=1),
        helper.make_node("MatMul", ["same", "query"], ["asked"]),
        helper.make_node("Add", ["inward", "onward"], ["gates"]),
        helper.make_node("Unsqueeze", ["gates", "one"], ["layer"]),
        helper.make_node("Concat", ["layer"], ["layers"], axis=1),
        helper.make_node("Gather", ["layers", "last"], ["top"], axis=1),
        helper.make_node("Tanh", ["top"], ["said"]),
    ]
    values = [
        constant("table", WORDS, EMBEDDED),
        constant("into", GATES, EMBEDDED + SEEN),
        constant("over", GATES, HIDDEN),
        constant("query", HIDDEN, 5),
        constant("bias", GATES),
        number("one", 1),
        number("first", 0, scalar=True),
        number("last", -1, scalar=True),
    ]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["rows"]),
        helper.make_tensor_value_info("seen", TensorProto.FLOAT, ["rows", SEEN]),
        helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["rows", 1, HIDDEN]),
    ]
    shapes = {"layers": ["rows", 1, GATES], "said": ["rows", GATES], "asked": ["rows", 5]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "cell", inputs, outputs, values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def computed(model: onnx.ModelProto, rows: int) -> list[Array]:
    random = np.random.default_rng(rows)
    given = {
        "tokens": random.integers(0, WORDS, rows),
        "seen": random.normal(size=(rows, SEEN)).astype(np.float32),
        "hidden": random.normal(size=(rows, 1, HIDDEN)).astype(np.float32),
    }
    return list(ReferenceEvaluator(model).run(None, given))


def fused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rearranged, having shown that it computes the same."""
    expected = {rows: computed(model, rows) for rows in (1, 5)}
    fuse(model)
    onnx.checker.check_model(model)
    for rows, arrays in expected.items():
        for found, array in zip(computed(model, rows), arrays, strict=True):
            np.testing.assert_allclose(found, array, rtol=1e-5, atol=1e-6)
    return model


def operations(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_a_step_takes_a_look_into_a_table_and_a_product_of_each_input() -> None:
    found = operations(fused(cell()))
    assert found["Gemm"] + found["MatMul"] == 2  # of what is seen, and of the state
    assert found["Squeeze"] == found["Concat"] == 0
    assert found["Gather"] == 2  # of the table, and of the state
    assert {array.name for array in fused(cell()).graph.initializer}.isdisjoint({"table", "into", "over", "query"})


def test_a_table_that_would_be_too_large_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "LARGEST_TABLE", WORDS * GATES * 4 - 1)
    found = operations(fused(cell()))
    assert found["Gemm"] + found["MatMul"] == 3


def test_a_product_that_is_more_than_one_is_left_alone() -> None:
    model = fused(cell(alpha=0.5))
    assert any(node.op_type == "Gemm" and "into" in node.input for node in model.graph.node)


def test_rows_of_a_decoder_meet_five_matrices(tiny_info: ModelInfo, tmp_path: Path) -> None:
    """Query, gate and recurrence; scores; context; the hidden part of the output; words."""
    plan = tiny_info.model.replace(attention="additive", attend="before", cell="lstm", gated_context=True)
    info = replace(tiny_info, model=plan)
    export(opinionated_model(info, seed=1, scale=1, embedding=1), info.image, tmp_path)
    model = onnx.load(tmp_path / graph_name(DECODER))
    constants = {one.name for one in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul") and node.input[1] in constants]
    assert len(products) == 5


@pytest.mark.parametrize("width", [128, 200])  # whole blocks, and a rest
def test_quantised_matrices_give_nearly_the_same(width: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["rows"], axis=0),
        helper.make_node("Gemm", ["rows", "weight", "bias"], ["out"], transB=1),
    ]
    values = [constant("table", 300, width), constant("weight", 100, width), constant("bias", 100)]
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["rows"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["rows", 100])
    model = helper.make_model(
        helper.make_graph(nodes, "quantised", [tokens], [out], values),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    given = {"tokens": np.array([5, 250, 7])}
    (expected,) = ReferenceEvaluator(model).run(None, given)
    whole = model.ByteSize()
    quantise_products(model)
    assert model.ByteSize() < 0.55 * whole  # tables in 16 bits, matrices in 8
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, given)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 0.02
    # A row's result is its own, whatever stands beside it.
    np.testing.assert_allclose(session.run(None, {"tokens": given["tokens"][1:2]})[0], found[1:2], rtol=1e-3, atol=1e-4)


def small(*nodes: onnx.NodeProto, out: list[int | str], **values: onnx.TensorProto) -> onnx.ModelProto:
    """A graph of (rows, 1, 4) ``x`` and (rows, 1, any) ``y``, and of what else is given."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 1, 4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", "more", 4]),
    ]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, out)]
    graph = helper.make_graph(nodes, "small", inputs, outputs, list(values.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def unchanged(model: onnx.ModelProto) -> bool:
    """Whether rearranging leaves the nodes as they are, and what they compute."""
    random = np.random.default_rng(2)
    given = {"x": random.normal(size=(2, 1, 4)).astype(np.float32), "y": random.normal(size=(2, 3, 4)).astype("f4")}
    (expected,), before = ReferenceEvaluator(model).run(None, given), [node.op_type for node in model.graph.node]
    fuse(model)
    (found,) = ReferenceEvaluator(model).run(None, given)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    return [node.op_type for node in model.graph.node] == before


def test_values_on_top_of_each_other_are_not_taken_for_values_side_by_side() -> None:
    above = helper.make_node("Concat", ["x", "y"], ["both"], axis=1)
    product = helper.make_node("MatMul", ["both", "weight"], ["out"])
    assert unchanged(small(above, product, out=["rows", "all", 3], weight=constant("weight", 4, 3)))


def test_a_bias_that_is_computed_stays_where_it_is() -> None:
    flat = helper.make_node("Flatten", ["x"], ["rows_of_x"])
    bias = helper.make_node("Tanh", ["seed"], ["bias"])
    product = helper.make_node("Gemm", ["rows_of_x", "weight", "bias"], ["out"])
    values = {"weight": constant("weight", 4, 3), "seed": constant("seed", 3)}
    assert unchanged(small(flat, bias, product, out=["rows", 3], **values))


def test_an_output_that_repeats_another_value_is_still_there() -> None:
    first = helper.make_node("Tanh", ["x"], ["inner"])
    again = helper.make_node("Tanh", ["x"], ["out"])
    used = helper.make_node("Add", ["inner", "y"], ["nowhere"])
    model = small(first, again, used, out=["rows", 1, 4])
    assert not unchanged(model)  # what nobody asks for is gone
    assert [node.op_type for node in model.graph.node] == ["Tanh"]


def test_only_the_element_of_a_new_axis_is_that_value() -> None:
    upright = helper.make_node("Unsqueeze", ["x", "one"], ["upright"])
    kept = helper.make_node("Gather", ["upright", "list"], ["out"], axis=1)  # a list of numbers keeps the axis
    values = {"one": number("one", 1), "list": number("list", 0)}
    assert unchanged(small(upright, kept, out=["rows", 1, 1, 4], **values))
