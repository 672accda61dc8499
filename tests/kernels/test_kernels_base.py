# SPDX-License-Identifier: Apache-2.0
"""The catalogue and the rules that every kernel obeys: what is refused, what a chunk is, what garbage does."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from qubix_kernels import Kernel, KernelSpec, UnknownKernel, get, names
from qubix_kernels.kernel import metas_of
from qubix_protocol.arrays import ArrayMeta, pack_arrays, unpack_arrays

F32 = "float32"


def example(kernel: Kernel, scale: int = 37, seed: int = 1) -> tuple[dict[str, Any], dict[str, Any]]:
    return kernel.example(np.random.default_rng(seed), scale)


def test_catalogue_lists_its_folders_and_refuses_other_names() -> None:
    assert names() == ("knn", "mandelbrot", "matmul", "montecarlo_option", "onnx")
    assert [get(name).spec.name for name in names()] == list(names())
    with pytest.raises(UnknownKernel, match="matmul"):
        get("matmul.cpu")


@pytest.mark.parametrize("name", names())
def test_every_kernel_of_the_catalogue_has_a_verifier_of_its_own(name: str) -> None:
    """B1: none of them waits for anybody's word."""
    assert get(name).spec.verifier
    assert type(get(name)).verify is not Kernel.verify


def test_back_ends_are_not_imported_by_specs() -> None:
    code = (
        "import sys, qubix_kernels as q; [q.get(n) for n in q.names()]; "
        "print([m for m in sys.modules if m.rpartition('.')[2] in ('cpu', 'cuda', 'webgpu', 'wgpu')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", names())
def test_spec_survives_json(name: str) -> None:
    spec = get(name).spec
    assert msgspec.json.decode(msgspec.json.encode(spec), type=KernelSpec) == spec


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("scale", [1, 2, 31, 64])
def test_examples_run_and_are_accepted(name: str, scale: int) -> None:
    kernel = get(name)
    inputs, params = example(kernel, scale)
    assert kernel.check(metas_of(inputs), params) == ()
    outputs = kernel.run("cpu", inputs, kernel.normalise(params))
    assert metas_of(outputs) == kernel.output_metas(metas_of(inputs), params)
    assert kernel.verify(inputs, params, outputs, np.random.default_rng(2)).accepted


@pytest.mark.parametrize("name", names())
def test_chunks_are_views_and_join_to_the_whole(name: str) -> None:
    kernel = get(name)
    inputs, params = example(kernel)
    units, parts = kernel.units(metas_of(inputs), params), []
    for start in range(0, units, 10):
        chunk, its_params = kernel.subproblem(inputs, params, start, min(units, start + 10))
        assert all(np.shares_memory(chunk[n], inputs[n]) for n in inputs)
        parts.append(kernel.run("cpu", chunk, its_params))
    assert kernel.verify(inputs, params, kernel.join(parts), np.random.default_rng(3)).accepted


@pytest.mark.parametrize("name", names())
def test_verify_takes_read_only_unaligned_views_off_the_wire(name: str) -> None:
    kernel = get(name)
    inputs, params = example(kernel)
    outputs = unpack_arrays(pack_arrays(kernel.run("cpu", inputs, params)))
    assert not any(array.flags.writeable for array in outputs.values())
    assert kernel.verify(unpack_arrays(pack_arrays(inputs)), params, outputs, np.random.default_rng(4)).accepted


@pytest.mark.parametrize("name", names())
def test_garbage_outputs_are_rejected_by_shape_and_never_raise(name: str) -> None:
    kernel = get(name)
    inputs, params = example(kernel)
    good = kernel.run("cpu", inputs, params)
    first = next(iter(good))
    changed: list[object] = [None, "text", b"x", 3.5, [[1.0]], good[first][:-1], good[first][None], good[first].T[:1]]
    changed += [good[first].astype(object), good[first].astype(np.float16), good[first].astype("S4"), np.array(None)]
    for value in changed:
        verdict = kernel.verify(inputs, params, {**good, first: value}, np.random.default_rng(5))  # type: ignore[arg-type]
        assert (verdict.accepted, verdict.reason) == (False, "shape")
    for outputs in (None, {}, {1: 2}, {**good, "more": good[first]}, [1], "outputs"):
        verdict = kernel.verify(inputs, params, outputs, np.random.default_rng(5))  # type: ignore[arg-type]
        assert (verdict.accepted, verdict.reason) == (False, "shape")


@pytest.mark.parametrize("name", names())
def test_costs_grow_with_units_and_checks_cost_less_than_runs(name: str) -> None:
    kernel = get(name)
    inputs, params = example(kernel, 1024)
    metas = metas_of(inputs)
    part, whole, check = (
        kernel.cost(metas, params, 100),
        kernel.cost(metas, params, 1024),
        kernel.check_cost(metas, params, 1024),
    )
    assert 9 * part.flops < whole.flops < 11 * part.flops
    assert check.flops < whole.flops / 5
    for cost in (part, whole, check):
        assert cost.memory_bytes >= sum(m.nbytes for m in metas.values()) / 2
        assert cost.bytes_moved > 0


def matrices(**changes: ArrayMeta) -> dict[str, ArrayMeta]:
    return {"a": ArrayMeta(F32, (3, 4)), "b": ArrayMeta(F32, (4, 5)), **changes}


def vectors(**changes: ArrayMeta) -> dict[str, ArrayMeta]:
    return {"queries": ArrayMeta(F32, (3, 4)), "data": ArrayMeta(F32, (9, 4)), **changes}


def picture(**changes: object) -> dict[str, object]:
    return {"width": 30, "height": 20, **changes}


def option(**changes: object) -> dict[str, object]:
    return {"spot": 100, "strike": 90.0, "volatility": 0.2, "maturity": 1, "lanes": 5, **changes}


BAD: list[tuple[str, Mapping[str, ArrayMeta], Mapping[str, object], str]] = [
    ("matmul", {"a": ArrayMeta(F32, (3, 4))}, {}, "inputs.b"),
    ("matmul", matrices(x=ArrayMeta(F32, (1,))), {}, "inputs.x"),
    ("matmul", matrices(a=ArrayMeta("int32", (3, 4))), {}, "inputs.a.dtype"),
    ("matmul", matrices(a=ArrayMeta("no such type", (3, 4))), {}, "inputs.a.dtype"),
    ("matmul", matrices(b=ArrayMeta("float64", (4, 5))), {}, "inputs.b.dtype"),
    ("matmul", matrices(a=ArrayMeta(F32, (3,))), {}, "inputs.a.shape"),
    ("matmul", matrices(b=ArrayMeta(F32, (5, 5))), {}, "inputs.b.shape"),
    ("matmul", matrices(a=ArrayMeta(F32, (0, 4))), {}, "inputs.a.shape"),
    ("matmul", matrices(a=ArrayMeta(F32, (-3, 4))), {}, "inputs.a.shape"),
    ("matmul", matrices(a=ArrayMeta(F32, (10**5000, 4))), {}, "inputs.a.shape"),
    ("matmul", {"a": ArrayMeta(F32, (200_000, 2)), "b": ArrayMeta(F32, (2, 200_000))}, {}, "inputs"),
    ("matmul", matrices(), {"k": 3}, "params.k"),
    ("knn", vectors(), {}, "params.k"),
    ("knn", vectors(), {"k": 0}, "params.k"),
    ("knn", vectors(), {"k": 10}, "params.k"),
    ("knn", vectors(), {"k": 10**5000}, "params.k"),
    ("knn", vectors(), {"k": True}, "params.k"),
    ("knn", vectors(), {"k": 2.0}, "params.k"),
    ("knn", vectors(), {"k": float("nan")}, "params.k"),
    ("knn", vectors(), {"k": "3"}, "params.k"),
    ("knn", vectors(), {"k": None}, "params.k"),
    ("knn", vectors(), {"k": 3, "metric": "l1"}, "params.metric"),
    ("knn", vectors(data=ArrayMeta(F32, (9, 5))), {"k": 3}, "inputs.data.shape"),
    ("knn", vectors(data=ArrayMeta("float64", (9, 4))), {"k": 3}, "inputs.data.dtype"),
    ("mandelbrot", {"a": ArrayMeta(F32, (3, 4))}, picture(), "inputs.a"),
    ("mandelbrot", {}, {"width": 30}, "params.height"),
    ("mandelbrot", {}, picture(height=0), "params.height"),
    ("mandelbrot", {}, picture(max_iterations=10**6), "params.max_iterations"),
    ("mandelbrot", {}, picture(left=float("nan")), "params.left"),
    ("mandelbrot", {}, picture(pixel=1e-8), "params.pixel"),
    ("mandelbrot", {}, picture(pixel=1.0), "params.pixel"),
    ("mandelbrot", {}, picture(first_row=-1), "params.first_row"),
    ("mandelbrot", {}, picture(width=2**16, height=2**16, pixel=1e-4), "inputs"),
    ("montecarlo_option", {}, option(kind="straddle"), "params.kind"),
    ("montecarlo_option", {}, option(spot=0), "params.spot"),
    ("montecarlo_option", {}, option(lanes=2**25), "params.lanes"),
    ("montecarlo_option", {}, option(volatility=4, maturity=1.0), "params.volatility"),
    ("montecarlo_option", {}, option(first_lane=2**32 - 4), "params.first_lane"),
    ("montecarlo_option", {}, option(seed=2**60), "params.seed"),
]


@pytest.mark.parametrize(
    ("name", "metas", "params", "field"), BAD, ids=[f"{b[0]}-{b[3]}-{i}" for i, b in enumerate(BAD)]
)
def test_bad_jobs_name_the_field_and_the_remedy(
    name: str, metas: Mapping[str, ArrayMeta], params: Mapping[str, object], field: str
) -> None:
    problems = get(name).check(metas, params)
    assert [p.field for p in problems] == [field]
    assert problems[0].problem
    assert problems[0].remedy


def test_good_jobs_have_no_problems() -> None:
    assert get("matmul").check(matrices(), {}) == ()
    assert get("knn").check(vectors(), {"k": 9}) == ()
    assert get("mandelbrot").check({}, picture()) == ()
    assert get("montecarlo_option").check({}, option(first_lane=2**32 - 5)) == ()


def test_unknown_back_end_is_named() -> None:
    inputs, params = example(get("matmul"))
    with pytest.raises(LookupError, match="abacus"):
        get("matmul").run("abacus", inputs, params)


def test_a_kernel_brings_the_verifier_that_its_specification_promises() -> None:
    """Without this, a kernel that forgot it would have whatever is of the right form paid (B1)."""
    checked, unchecked = get("matmul").spec, msgspec.structs.replace(get("matmul").spec, verifier=False)
    run = {"run": lambda self, backend, inputs, params: {}}
    with pytest.raises(TypeError, match="it brings none"):
        type("Forgetful", (Kernel,), {"spec": checked, **run})
    with pytest.raises(TypeError, match="it brings one"):
        type("Overdone", (Kernel,), {"spec": unchecked, "verify": type(get("matmul")).verify, **run})


def test_a_parameter_of_another_kind_is_shown_with_what_it_should_be() -> None:
    (problem,) = get("knn").check(
        {"queries": ArrayMeta("float32", (4, 2)), "data": ArrayMeta("float32", (8, 2))}, {"k": "three"}
    )
    assert problem.field == "params.k"
    assert problem.problem == "is 'three'"
    assert problem.remedy.startswith("give a whole number: ")
