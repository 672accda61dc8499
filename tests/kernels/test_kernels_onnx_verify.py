# SPDX-License-Identifier: Apache-2.0
"""The check of a model's outputs: no honest result is flagged, however it was computed; plausible cheats are caught."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qubix_kernels.kernel import BadInput
from qubix_kernels.onnx import signature, verify
from qubix_protocol.arrays import Array
from tests.kernels.models_world import F32, KERNEL, ModelJob, dense, halved, made, of_nodes

I64 = TensorProto.INT64
WIDTH = 24


def job_of(seed: int, rows: int = 12, sizes: tuple[int, ...] = (WIDTH, 48, 16), dtype: Any = np.float32) -> ModelJob:
    rng = np.random.default_rng(seed)
    return ModelJob.of(dense(rng, sizes, dtype), x=rng.standard_normal((rows, sizes[0])).astype(dtype))


def elsewhere(job: ModelJob, seed: int) -> dict[str, Array]:
    """As a machine of another kind has it: every sum in an order of its own, in pieces, in the model's precision."""
    rng = np.random.default_rng(seed)
    y = job.inputs["x"]
    for tensor in onnx.load_model_from_string(job.inputs["model"].tobytes()).graph.initializer:
        weights = numpy_helper.to_array(tensor)
        pieces = np.array_split(rng.permutation(len(weights)), int(rng.integers(1, 9)))
        wide = np.float32 if y.dtype == np.float16 else y.dtype
        total = np.zeros((len(y), weights.shape[1]), wide)
        for piece in pieces:
            total += y[:, piece].astype(wide) @ weights[piece].astype(wide)
        y = np.tanh(total.astype(y.dtype))
    return {"y": y}


# Honest results -----------------------------------------------------------------------------------------------------


def test_no_honest_result_is_flagged_in_three_hundred_runs() -> None:
    flagged: list[int] = []
    differ = 0
    for seed in range(300):
        sizes = [(WIDTH, 16), (WIDTH, 48, 16), (WIDTH, 64, 64, 64, 8)][seed % 3]
        job = job_of(seed, rows=1 + seed % 9, sizes=sizes)
        verdict = job.verdict(elsewhere(job, seed), seed)
        differ += verdict.measured["worst_over_tolerance"] > 0
        flagged += [] if verdict.accepted else [seed]
    assert flagged == []
    assert differ > 250, "machines of another kind do differ"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_float_type_is_accepted_from_elsewhere_and_zeros_are_not(dtype: str) -> None:
    job = job_of(3, dtype=np.dtype(dtype))
    honest = job.run()
    assert honest["y"].dtype == dtype
    for seed in range(6):
        assert job.verdict(elsewhere(job, seed)).accepted
    assert not job.verdict({"y": np.zeros_like(honest["y"])}).accepted


def magnifying(times: int) -> ModelJob:
    """x → sin(50 x) again and again: each step magnifies what rounding left by as much as 50."""
    nodes, at = [], "x"
    for i in range(times):
        to = "y" if i == times - 1 else f"s{i}"
        nodes += [helper.make_node("Mul", [at, "k"], [f"m{i}"]), helper.make_node("Sin", [f"m{i}"], [to])]
        at = to
    rng = np.random.default_rng(times)
    k = np.full((1, 6), 50, np.float32)
    return ModelJob.of(of_nodes(*nodes, weights={"k": k}), x=rng.standard_normal((9, 6), dtype=np.float32))


def test_a_model_that_magnifies_rounding_blames_nobody() -> None:
    job = magnifying(4)
    moved = ModelJob({**job.inputs, "x": np.nextafter(job.inputs["x"], np.float32(9))}, job.params).run()
    assert np.abs(moved["y"] - job.run()["y"]).max() > 0.01, "the model is as sensitive as it is meant to be"
    verdict = job.verdict(moved)
    assert verdict.accepted, verdict
    assert verdict.measured["suspicious"] > 0


def test_a_model_that_is_a_little_sensitive_still_tells_work_from_none() -> None:
    job = magnifying(2)
    honest = job.run()
    assert job.verdict(honest).accepted
    for cheat in (np.zeros_like(honest["y"]), honest["y"][::-1], honest["y"] * 0.9):
        assert not job.verdict({"y": cheat}).accepted


# Cheats -------------------------------------------------------------------------------------------------------------


def one_skipped(y: Array) -> Array:
    y[7] = 0
    return y


def one_copied(y: Array) -> Array:
    y[5] = y[4]
    return y


def planted(y: Array) -> Array:
    """1 % of the usual size on one element."""
    y[3, 2] += np.float32(0.01 * np.sqrt(np.mean(y**2)))
    return y


def at(value: float) -> Callable[[Array], Array]:
    def change(y: Array) -> Array:
        y[2, 1] = value
        return y

    return change


CHEATS: dict[str, Callable[[Array], Array]] = {
    "zeros": np.zeros_like,
    "one row skipped": one_skipped,
    "one row copied": one_copied,
    "one element off by 1 %": planted,
    "reversed": lambda y: y[::-1].copy(),
    "shifted by one row": lambda y: np.roll(y, 1, axis=0),
    "columns swapped": lambda y: y[:, ::-1].copy(),
    "float16": lambda y: y.astype(np.float16).astype(np.float32),
    "three digits": lambda y: np.round(y, 3),
    "negated": lambda y: -y,
    "the mean of all rows": lambda y: np.repeat(y.mean(axis=0, keepdims=True), len(y), axis=0),
    "noise of the same size": lambda y: np.random.default_rng(1).permuted(y, axis=0),
    "NaN everywhere": lambda y: np.full_like(y, np.nan),
    "one NaN": at(np.nan),
    "one infinity": at(np.inf),
    "one huge": at(3e38),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CHEATS)
def test_planted_cheats_are_caught(name: str, seed: int) -> None:
    job = job_of(seed)
    honest = job.run()["y"]
    verdict = job.verdict({"y": CHEATS[name](honest.copy())}, seed)
    assert (verdict.accepted, verdict.reason) == (False, "output"), verdict


def test_another_inputs_output_and_another_models_output_are_caught() -> None:
    job, other = job_of(1), job_of(2)
    mixed = ModelJob({**job.inputs, "x": other.inputs["x"]}, job.params)
    assert not job.verdict(mixed.run()).accepted
    assert not job.verdict(other.run()).accepted


def test_the_model_with_weights_of_half_the_precision_is_another_model() -> None:
    for seed in range(6):
        job = job_of(seed)
        model = np.frombuffer(halved(job.inputs["model"].tobytes()), np.uint8)
        assert not job.verdict(ModelJob({**job.inputs, "model": model}, job.params).run()).accepted


def test_one_bad_output_of_several_is_caught() -> None:
    """Each output is measured by its own size: zeros in a small one do not hide beside a large one."""
    model = made(
        [helper.make_node("Mul", ["x", "big"], ["a"]), helper.make_node("Mul", ["x", "small"], ["b"])],
        {"x": (F32, ["n", 6])},
        {"a": (F32, ["n", 6]), "b": (F32, ["n", 6])},
        {"big": np.full(6, 1e20, np.float32), "small": np.full(6, 1e-20, np.float32)},
    ).SerializeToString()
    job = ModelJob.of(model, x=np.random.default_rng(1).standard_normal((4, 6), dtype=np.float32))
    outputs = job.checked()
    for name in ("a", "b"):
        assert not job.verdict({**outputs, name: np.zeros_like(outputs[name])}).accepted


def test_a_share_of_skipped_rows_is_caught_as_often_as_the_notes_say() -> None:
    """16 of 200 rows are sampled: of a quarter skipped, one check in a hundred is passed; here 40 are tried."""
    job = job_of(5, rows=200)
    cheated = job.run()["y"].copy()
    cheated[::4] = 0
    passed = sum(job.verdict({"y": cheated}, seed).accepted for seed in range(40))
    assert passed <= 5


# Whole numbers, ties, NaN -------------------------------------------------------------------------------------------


def choosing(scores: Array) -> ModelJob:
    """argmax of x·w + b: the class of each row."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node("ArgMax", ["s"], ["y"], axis=1, keepdims=0),
    ]
    rng = np.random.default_rng(4)
    weights = np.repeat(rng.standard_normal((16, 1)).astype(np.float32), scores.shape[1], axis=1)
    model = made(nodes, {"x": (F32, ["n", 16])}, {"y": (I64, ["n"])}, {"w": (weights + scores).astype(np.float32)})
    return ModelJob.of(model.SerializeToString(), x=rng.standard_normal((12, 16), dtype=np.float32))


def test_a_class_is_exact_where_scores_differ() -> None:
    rng = np.random.default_rng(2)
    job = choosing(rng.standard_normal((16, 5)))
    honest = job.checked()["y"]
    for row in range(12):
        other = honest.copy()
        other[row] = (other[row] + 1) % 5
        assert not job.verdict({"y": other}).accepted


def test_a_class_may_be_either_where_rounding_cannot_tell_two_scores_apart() -> None:
    job = choosing(np.random.default_rng(3).standard_normal((16, 2)) * 2e-8)
    honest = job.checked()["y"]
    assert any(job.verdict({"y": np.where(np.arange(12) == row, 1 - honest, honest)}).accepted for row in range(12))
    assert not job.verdict({"y": np.full_like(honest, 7)}).accepted


def test_nan_is_accepted_where_the_model_gives_it_and_nowhere_else() -> None:
    job = ModelJob.of(
        of_nodes(helper.make_node("Log", ["x"], ["y"])), x=np.linspace(-1, 1, 24).reshape(4, 6).astype("f4")
    )
    honest = job.checked()["y"]
    assert np.isnan(honest).any()
    for wrong in (np.nan_to_num(honest), np.where(np.isnan(honest), np.inf, honest), np.full_like(honest, np.nan)):
        assert not job.verdict({"y": wrong}).accepted


def test_truth_values_and_whole_numbers_are_exact() -> None:
    model = made(
        [
            helper.make_node("Greater", ["x", "zero"], ["b"]),
            helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
        ],
        {"x": (F32, ["n", 6])},
        {"b": (TensorProto.BOOL, ["n", 6]), "i": (TensorProto.INT32, ["n", 6])},
        {"zero": np.zeros(1, np.float32)},
    ).SerializeToString()
    job = ModelJob.of(model, x=(np.random.default_rng(1).standard_normal((4, 6)) * 40).astype(np.float32))
    honest = job.checked()
    assert not job.verdict({**honest, "b": ~honest["b"]}).accepted
    assert not job.verdict({**honest, "i": honest["i"] + 1}).accepted


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_excess_counts_in_units_of_the_tolerance(dtype: str) -> None:
    ours = np.array([[1.0, 0.5], [2.0, 0.0]], dtype)
    allowed = verify._RELATIVE_ULPS[dtype] * float(np.finfo(dtype).eps)
    assert verify.excess(ours, ours, []).tolist() == [0, 0]
    off = ours.astype(np.float64)
    off[1, 1] += 2 * 2.0 * allowed / 8
    assert verify.excess(off.astype(dtype), ours, [])[1] == pytest.approx(2, rel=0.1)


# What is no verdict -------------------------------------------------------------------------------------------------


def test_rows_that_know_of_each_other_blame_nobody() -> None:
    """Less than the worker's own look at it notices, more than rounding: the check is what finds it."""
    model = of_nodes(
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Mul", ["m", "c"], ["s"]),
        helper.make_node("Sub", ["x", "s"], ["y"]),
        weights={"c": np.array([2e-3], np.float32)},
    )
    rng = np.random.default_rng(1)
    job = ModelJob.of(model, x=rng.standard_normal((64, 6), dtype=np.float32))
    outputs = job.run()
    with pytest.raises(BadInput, match="depends on the rows beside it"):
        job.verdict(outputs)


def test_the_sample_is_small_for_many_rows_whole_for_few_and_bounded_for_heavy_models() -> None:
    one = signature.decode(job_of(1).params["signature"])
    heavy = signature.Signature(**{**{n: getattr(one, n) for n in one.__struct_fields__}, "flops": 2e11})
    assert [one.sample(n) for n in (1, 16, 17, 512, 3200)] == [1, 16, 16, 16, 100]
    assert [heavy.sample(n) for n in (1, 3, 100, 10**6)] == [1, 3, 5, 5]
    assert (one.decidable > 10_000, heavy.decidable) == (True, 1)


def test_garbage_outputs_are_rejected_by_shape() -> None:
    job = job_of(1)
    y = job.run()["y"]
    for wrong in (None, {}, {"z": y}, {"y": y[:-1]}, {"y": y.astype(np.float64)}, {"y": y.T}, {"y": "text"}):
        verdict = KERNEL.verify(job.inputs, job.params, wrong, np.random.default_rng(1))  # type: ignore[arg-type]
        assert (verdict.accepted, verdict.reason) == (False, "shape")
