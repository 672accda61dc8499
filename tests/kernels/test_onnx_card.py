# SPDX-License-Identifier: Apache-2.0
"""What a model's file says of itself, and what a description makes of shapes that are declared, open or given."""

from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from qubix_kernels.onnx import task
from qubix_kernels.onnx.frames import DescribeDone, DescribeTask
from qubix_kernels.onnx.signature import decode
from qubix_protocol.arrays import Array, ArrayMeta
from tests.kernels.models_world import F32, dense, made, of_nodes

RELU = helper.make_node("Relu", ["x"], ["y"])


def described(data: bytes, *whole: str, forms: dict[str, ArrayMeta] | None = None, **inputs: Array) -> DescribeDone:
    asked = DescribeTask(model="", inputs=dict.fromkeys(inputs, ""), forms=forms or {}, whole=whole)
    found = task.run(asked, data, inputs)
    # As it comes out of a box: what a parent does not take for an event is no answer.
    return msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=DescribeDone)


def shaped(*dims: Any) -> bytes:
    return bytes(made([RELU], {"x": (F32, dims)}, {"y": (F32, dims)}).SerializeToString())


def test_the_card_says_what_is_in_the_file() -> None:
    data = dense(np.random.default_rng(1))
    found = described(data)
    assert found.card is not None
    assert (found.card.size_bytes, found.card.parameters, found.card.nodes) == (len(data), 24 * 48 + 48 * 16, 4)
    assert found.card.operators == {"MatMul": 2, "Tanh": 2}
    assert (found.card.opsets, found.card.ir_version) == ({"": 17}, 8)
    assert [(one.name, one.wire, one.dtype, one.dims) for one in (*found.card.inputs, *found.card.outputs)] == [
        ("x", "x", "float32", ("n", 24)),
        ("y", "y", "float32", ("n", 16)),
    ]
    signature = decode(found.signature)
    assert signature.outputs["y"].shape == (16,)
    assert signature.flops > 2 * (24 * 48 + 48 * 16)


@pytest.mark.parametrize(
    ("dims", "mode"), [(("n", 6), "rows"), ((None, 6), "rows"), ((1, 6), "row"), ((4, 6), "stack"), ((), "stack")]
)
def test_declared_shapes_are_enough_for_a_trial(dims: tuple[Any, ...], mode: str) -> None:
    found = described(shaped(*dims))
    assert decode(found.signature).mode == mode
    assert (found.needs, found.refusal) == ((), None)


@pytest.mark.parametrize("dims", [("n", "length"), ("n", 3, None, None)])
def test_what_is_open_elsewhere_must_be_given(dims: tuple[Any, ...]) -> None:
    found = described(shaped(*dims))
    assert (found.needs, found.signature, found.refusal) == (("x",), "", None)
    assert found.card is not None
    assert found.card.inputs[0].dims == tuple(dim or "?" for dim in dims)
    form = ArrayMeta("float32", (10, 3, 8, 8)[: len(dims)])
    assert decode(described(shaped(*dims), forms={"x": form}).signature).inputs["x"].shape == form.shape[1:]


def test_the_values_that_were_given_are_what_is_run() -> None:
    """A branch by the data: zeros would take the cheap one."""
    w = np.ones((6, 6), np.float32)
    heavy = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Sin", ["a"], ["t"])],
        "heavy",
        [],
        [helper.make_tensor_value_info("t", F32, ["n", 6])],
    )
    light = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["e"])], "light", [], [helper.make_tensor_value_info("e", F32, ["n", 6])]
    )
    nodes = [
        helper.make_node("Cast", ["which"], ["yes"], to=9),
        helper.make_node("If", ["yes"], ["y"], then_branch=heavy, else_branch=light),
    ]
    data = bytes(
        made(nodes, {"x": (F32, ["n", 6]), "which": (F32, [])}, {"y": (F32, ["n", 6])}, {"w": w}).SerializeToString()
    )
    x = np.ones((3, 6), np.float32)
    flops = [decode(described(data, x=x, which=np.array(value, np.float32)).signature).flops for value in (1.0, 0.0)]
    assert flops[0] > flops[1]


def test_what_zeros_lead_to_is_no_refusal_while_no_inputs_are_given() -> None:
    """A step that must not be 0."""
    weights = {"from": np.array([0]), "to": np.array([6]), "axis": np.array([1])}
    slicing = helper.make_node("Slice", ["x", "from", "to", "axis", "step"], ["y"])
    shapes = {"x": (F32, ["n", 6]), "step": (TensorProto.INT64, [1])}, {"y": (F32, ["n", "m"])}
    data = bytes(made([slicing], *shapes, weights).SerializeToString())
    found = described(data)
    assert found.needs == ("x", "step")
    assert found.refusal is not None
    assert found.refusal.code == "cannot_run"
    given = {"x": np.ones((3, 6), np.float32), "step": np.array([2])}
    assert decode(described(data, **given).signature).outputs["y"].shape == (3,)
    given["step"] = np.array([0])
    again = described(data, **given)
    assert again.needs == ()
    assert again.refusal is not None


def test_a_refusal_has_a_code_and_a_remedy() -> None:
    model = ModelProto.FromString(of_nodes(RELU))
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found = described(bytes(model.SerializeToString()))
    assert (found.card, found.signature, found.needs) == (None, "", ())
    assert found.refusal is not None
    assert found.refusal.code == "unsupported_operator"
    assert "com.microsoft" in found.refusal.problem
    assert "without custom operators" in found.refusal.remedy


def test_a_strangers_words_are_text_alone() -> None:
    model = ModelProto.FromString(of_nodes(RELU))
    model.producer_name, model.producer_version = "\x1b[2J\0evil" + "x" * 500, "\x9b31m"
    found = described(bytes(model.SerializeToString()))
    assert found.card is not None
    assert found.card.producer.isprintable()
    assert found.card.producer.startswith(" [2J evil")
    assert len(found.card.producer) <= 256


def test_names_that_cannot_be_sent_are_refused() -> None:
    evil = "\x1b[2J"
    model = made([helper.make_node("Relu", [evil], ["y"])], {evil: (F32, ["n", 6])}, {"y": (F32, ["n", 6])})
    found = described(bytes(model.SerializeToString()))
    assert found.refusal is not None
    assert found.refusal.code == "names"


def test_rows_that_know_of_each_other_are_refused_without_any_input() -> None:
    """Zeros plus a constant of the batch: the second row shows it."""
    nodes = [
        helper.make_node("Cos", ["x"], ["c"]),
        helper.make_node("CumSum", ["c", "axis"], ["y"]),
    ]
    data = of_nodes(*nodes, weights={"axis": np.array(0, np.int32)})
    found = described(data)
    assert found.signature, "the first row is the same alone and beside another"
    sums = [helper.make_node("Cos", ["x"], ["c"]), helper.make_node("ReduceSum", ["c", "axes"], ["s"], keepdims=1)]
    data = of_nodes(*sums, helper.make_node("Add", ["c", "s"], ["y"]), weights={"axes": np.array([0], np.int64)})
    found = described(data)
    assert found.refusal is not None
    assert found.refusal.code == "dependent_rows"
