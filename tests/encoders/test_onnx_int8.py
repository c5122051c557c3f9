"""Graphs by hand: what they answer in whole numbers is near what they answer in float32, row by row."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from endcap.core.types import Float32Array
from endcap.encoders.onnx_int8 import activations, quantise, reach

RANDOM = np.random.default_rng(0)
WIDTH, INNER, ROWS = 32, 48, 2000


def _model(weights: dict[str, Any], nodes: list[Any], inputs: list[Any]) -> Any:
    graph = helper.make_graph(
        nodes,
        "graph",
        inputs,
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _answers(model: Any, names: list[str], feed: dict[str, Any]) -> list[Float32Array]:
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    seen.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name != "out")
    session = onnxruntime.InferenceSession(seen.SerializeToString(), providers=["CPUExecutionProvider"])
    answers: list[Float32Array] = session.run(names, feed)
    return answers


def _normal(*shape: int) -> Float32Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def _product() -> tuple[Any, Float32Array]:
    """x W, with a column of x that reaches far, as those of transformers do."""
    rows = _normal(6, WIDTH)
    rows[:, 3] *= 40
    nodes = [helper.make_node("MatMul", ["x", "w"], ["out"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, WIDTH])]
    return _model({"w": _normal(WIDTH, INNER)}, nodes, inputs), rows


def _quantised(model: Any, rows: Float32Array) -> Any:
    names = activations(model)
    return quantise(model, reach([dict(zip(names, _answers(model, names, {"x": rows}), strict=True))]))


def _error(model: Any, rows: Float32Array) -> float:
    (exact,), (found,) = (_answers(one, ["out"], {"x": rows}) for one in (model, _quantised(model, rows)))
    return float(np.linalg.norm(exact - found) / np.linalg.norm(exact))


def test_a_product_is_near_the_exact_one() -> None:
    assert _error(*_product()) < 0.01


def test_columns_that_reach_far_are_evened_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = _product()
    evened = _error(model, rows)
    monkeypatch.setattr("endcap.encoders.onnx_int8._smoothing", lambda reach, weights: np.ones_like(reach))
    assert evened < 0.5 * _error(model, rows)


def test_a_row_is_the_same_in_any_batch() -> None:
    model, rows = _product()
    quantised = _quantised(model, rows)
    (together,) = _answers(quantised, ["out"], {"x": rows * np.array([[1], [9], [1], [1], [1], [99]], np.float32)})
    (alone,) = _answers(quantised, ["out"], {"x": rows[:1]})
    np.testing.assert_allclose(together[:1], alone, rtol=1e-5, atol=1e-5)


def test_constant_rows_and_rows_of_nothing_are_kept() -> None:
    model, rows = _product()
    flat = np.stack([np.zeros(WIDTH), np.full(WIDTH, 3.0)]).astype(np.float32)
    (exact,), (found,) = (_answers(one, ["out"], {"x": flat}) for one in (model, _quantised(model, rows)))
    np.testing.assert_allclose(found[0], 0, atol=1e-6)
    assert np.linalg.norm(exact[1] - found[1]) < 0.03 * np.linalg.norm(exact[1])


def test_products_with_biases_and_tables_are_quantised_and_what_they_share_once() -> None:
    weights = {
        "table": _normal(ROWS, WIDTH),
        "first": _normal(INNER, WIDTH),
        "second": _normal(WIDTH, INNER),
        "bias": _normal(INNER),
    }
    nodes = [
        helper.make_node("Gather", ["table", "words"], ["x"]),
        helper.make_node("Gemm", ["x", "first", "bias"], ["one"], transB=1),
        helper.make_node("MatMul", ["x", "second"], ["two"]),
        helper.make_node("Add", ["one", "two"], ["out"]),
    ]
    model = _model(weights, nodes, [helper.make_tensor_value_info("words", TensorProto.INT64, [None])])
    words = {"words": np.arange(0, ROWS, 100)}
    assert activations(model) == ["x"]
    quantised = quantise(model, reach([{"x": _answers(model, ["x"], words)[0]}]))
    (exact,), (found,) = (_answers(one, ["out"], words) for one in (model, quantised))
    assert np.linalg.norm(exact - found) < 0.02 * np.linalg.norm(exact)
    kinds = [node.op_type for node in quantised.graph.node]
    assert (kinds.count("MatMulInteger"), kinds.count("QuantizeLinear")) == (2, 1)
    assert not {"MatMul", "Gemm"} & set(kinds)
    floats = [one for one in quantised.graph.initializer if one.data_type == TensorProto.FLOAT]
    assert max(np.prod(one.dims) for one in floats) <= ROWS, "a matrix is still kept in float32"
    onnx.checker.check_model(quantised)


def test_layers_may_share_their_weights() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("MatMul", ["y", "w"], ["out"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, WIDTH])]
    model = _model({"w": _normal(WIDTH, WIDTH)}, nodes, inputs)
    rows = _normal(6, WIDTH)
    rows[:, 3] *= 40
    assert _error(model, rows) < 0.02


def test_what_is_no_plain_product_is_left_as_it_is() -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5), helper.make_node("MatMul", ["y", "y2"], ["out"])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "y2")]
    model = _model({"w": _normal(2, 2)}, nodes, inputs)
    assert activations(model) == []
    assert [node.op_type for node in quantise(model, {}).graph.node] == ["Gemm", "MatMul"]
