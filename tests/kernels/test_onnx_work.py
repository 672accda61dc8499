# SPDX-License-Identifier: Apache-2.0
"""What a model is said to cost: counted from what ran, so that a forecast, and with it the pay, goes with the time."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from qubix_kernels.onnx import signature, work
from qubix_kernels.onnx.trial import trial
from tests.kernels import real_inputs as real
from tests.kernels.models_world import F32, ModelJob, dense, made, of_nodes

ONE = np.ones((1, 6), np.float32)


def op(kind: str, *shapes: work.Shape, output: work.Shape) -> work.Op:
    return work.Op(kind, shapes, (output,), 0)


@pytest.mark.parametrize(
    ("found", "products"),
    [
        (op("MatMul", (5, 7), (7, 3), output=(5, 3)), 5 * 7 * 3),
        (op("Gemm", (5, 7), (7, 3), output=(5, 3)), 5 * 7 * 3),
        (op("Gemm", (7, 5), (7, 3), output=(5, 3)), 5 * 7 * 3),
        (op("Conv", (1, 4, 9, 9), (8, 4, 3, 3), output=(1, 8, 7, 7)), 8 * 49 * 4 * 9),
        (op("Conv", (1, 8, 9, 9), (8, 1, 3, 3), output=(1, 8, 7, 7)), 8 * 49 * 9),
        (op("ConvTranspose", (1, 4, 5, 5), (4, 8, 2, 2), output=(1, 8, 10, 10)), 4 * 25 * 8 * 4),
        (op("Einsum", (5, 7), (7, 3), output=(5, 3)), 5 * 7 * 3),
        (op("LSTM", (30, 2, 16), (1, 32, 16), (1, 32, 8), output=(30, 1, 2, 8)), 60 * (32 * 16 + 32 * 8)),
        (op("QLinearConv", (1, 4, 9, 9), (), (), (8, 4, 3, 3), output=(1, 8, 7, 7)), 8 * 49 * 36),
    ],
    ids=lambda value: value.kind if isinstance(value, work.Op) else "",
)
def test_multiplications_are_those_of_the_textbook(found: work.Op, products: float) -> None:
    counted = work.total([found], together=False).flops - work.NODE_FLOPS
    floor = 40.0 * products if found.kind == "LSTM" else 2.0 * products  # its weights are read at each step
    assert counted == pytest.approx(floor)


def test_what_moves_more_than_it_computes_costs_what_it_moves() -> None:
    relu = work.Op("Relu", ((1000,),), ((1000,),), 8000)
    assert work.total([relu], together=False).flops == 8000 * work.BYTE_FLOPS + work.NODE_FLOPS


def test_rows_that_run_together_share_weights_and_starting() -> None:
    found = work.Op("MatMul", ((1, 100), (100, 100)), ((1, 100),), 800, 40_000)
    alone, shared = (work.total([found], together=together) for together in (False, True))
    assert shared.flops == pytest.approx(2 * 100 * 100 + work.NODE_FLOPS / work.BATCH_MAX)
    assert alone.flops > 10 * shared.flops


def loop(times: int) -> bytes:
    """tanh again and again; the number of times is in the model."""
    value = [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", 9, [])]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Tanh", ["v"], ["w"])],
        "body",
        [*value, helper.make_tensor_value_info("v", F32, None)],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("w", F32, None)],
    )
    count = helper.make_node("Constant", [], ["m"], value=numpy_helper.from_array(np.array(times, np.int64), "m"))
    return of_nodes(count, helper.make_node("Loop", ["m", "", "x"], ["y"], body=body))


def test_a_loop_costs_as_often_as_it_runs() -> None:
    few, many = (trial(loop(times), {"x": ONE}, together=False).work.flops for times in (10, 1000))
    assert 50 < many / few < 110


def branches() -> bytes:
    """Products when x is positive, nothing when it is not."""
    out = helper.make_tensor_value_info("z", F32, None)
    heavy = [helper.make_node("MatMul", ["x" if i == 0 else f"h{i}", "w"], [f"h{i + 1}"]) for i in range(20)]
    dear = helper.make_graph([*heavy, helper.make_node("Identity", ["h20"], ["z"])], "dear", [], [out])
    cheap = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "cheap", [], [out])
    nodes = [
        helper.make_node("ReduceMin", ["x"], ["least"], keepdims=0),
        helper.make_node("Greater", ["least", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=dear, else_branch=cheap),
    ]
    weights = {"w": np.eye(300, dtype=np.float32), "zero": np.zeros((), np.float32)}
    shape = (F32, ["n", 300])
    return bytes(made(nodes, {"x": shape}, {"y": shape}, weights).SerializeToString())


def test_a_branch_costs_what_is_taken() -> None:
    x = np.ones((1, 300), np.float32)
    taken, left = (trial(branches(), {"x": sign * x}, together=False).work.flops for sign in (1, -1))
    assert taken > 20 * 2 * 300 * 300 > left


def test_every_machine_counts_alike_whatever_its_threads() -> None:
    data = dense(np.random.default_rng(1))
    x = np.zeros((1, 24), np.float32)
    assert len({trial(data, {"x": x}, together=True).work for _ in range(5)}) == 1


@pytest.mark.parametrize("name", ["speech", "faces", "text"])
def test_trained_models_of_very_different_make_are_within_what_a_check_can_carry(name: str) -> None:
    found = signature.decode(ModelJob.named(*real.small_job(name)).params["signature"])
    assert 1e7 < found.flops < 1e10
    assert 1e5 < found.memory_bytes < 1e9
