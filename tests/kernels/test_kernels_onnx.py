# SPDX-License-Identifier: Apache-2.0
"""The onnx kernel's doors: which models and signatures are refused, and that the provider that was named computes."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from qubix_kernels.kernel import BadInput, metas_of
from qubix_kernels.onnx import sample, session, signature
from qubix_kernels.onnx.describe import describe
from qubix_kernels.onnx.model import NODES_MAX, inspect
from qubix_protocol.arrays import ArrayMeta
from tests.kernels.models_world import F32, KERNEL, ModelJob, dense, made, of_nodes

RNG = np.random.default_rng(5)
X = RNG.standard_normal((5, 6), dtype=np.float32)
RELU = helper.make_node("Relu", ["x"], ["y"])


def parsed(data: bytes) -> ModelProto:
    return onnx.load_model_from_string(data)


# The example --------------------------------------------------------------------------------------------------------


def test_the_example_is_a_valid_model_and_its_signature_is_what_a_trial_finds() -> None:
    inputs, params = KERNEL.example(np.random.default_rng(1), 3)
    data = inputs["model"].tobytes()
    onnx.checker.check_model(parsed(data), full_check=True)
    assert describe(data, {"x": inputs["x"]}).signature.text() == params["signature"]


# What is refused of a model -----------------------------------------------------------------------------------------


def changed(change: Callable[[ModelProto], object]) -> bytes:
    model = parsed(dense(np.random.default_rng(2), (6, 6)))
    change(model)
    return bytes(model.SerializeToString())


def external(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def external_in_a_constant(model: ModelProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("t", F32, [1], [0.0]))
    entry = node.attribute[0].t.external_data.add()
    entry.key, entry.value = "location", "../secret"
    model.graph.node.append(node)


def inner(node: Any) -> Callable[[ModelProto], None]:
    """An operator inside a branch of an operator."""

    def change(model: ModelProto) -> None:
        branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("z", F32, None)])
        model.graph.node.append(helper.make_node("If", ["x"], ["z2"], then_branch=branch, else_branch=branch))

    return change


def foreign_domain(model: ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def opset(domain: str, version: int) -> Callable[[ModelProto], object]:
    def change(model: ModelProto) -> None:
        del model.opset_import[:]
        model.opset_import.extend([helper.make_opsetid("", 17)] if domain else [])
        model.opset_import.append(helper.make_opsetid(domain, version))

    return change


def function(model: ModelProto) -> None:
    made_of = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], made_of, [helper.make_opsetid("", 17)]))


def impossible_shape(model: ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**40]


def text_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def sparse(model: ModelProto) -> None:
    model.graph.sparse_initializer.add()


def many_nodes(model: ModelProto) -> None:
    del model.graph.node[:]
    model.graph.node.extend([onnx.NodeProto()] * (NODES_MAX + 1))


REFUSED: list[tuple[Callable[[ModelProto], object], str]] = [
    (external, "outside the file"),
    (external_in_a_constant, "outside the file"),
    (foreign_domain, "domain com.microsoft"),
    (inner(helper.make_node("Evil", [], ["z"], domain="x.y")), "domain x.y"),
    (inner(helper.make_node("RandomNormal", [], ["z"], shape=[1])), "random numbers"),
    (lambda m: m.graph.node.append(helper.make_node("Bernoulli", ["x"], ["z"])), "random numbers"),
    (lambda m: m.graph.node.append(helper.make_node("Dropout", ["x", "r", "t"], ["z"])), "random numbers"),
    (opset("", 5), "ai.onnx 5"),
    (opset("", 999), "ai.onnx 999"),
    (opset("ai.onnx.ml", 99), "ai.onnx.ml 99"),
    (lambda m: m.ClearField("opset_import"), "does not say"),
    (lambda m: setattr(m, "ir_version", 99), "IR version 99"),
    (function, "functions"),
    (impossible_shape, "impossible shape"),
    (text_input, "number type"),
    (sparse, "sparse"),
    (many_nodes, "more than"),
    (lambda m: m.graph.ClearField("output"), "0 outputs"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_models_are_refused_before_anything_is_loaded(change: Callable[[ModelProto], object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        inspect(changed(change))


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"PK\x03\x04 not a model", b"\x0a" * 5000, bytes(range(256)) * 8])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput):
        inspect(data)


def test_a_model_cut_short_anywhere_is_refused_or_runs_never_more() -> None:
    data = dense(np.random.default_rng(3), (6, 6))
    good = ModelJob.of(data, x=X)
    for cut in range(0, len(data), 7):
        with pytest.raises(BadInput):
            KERNEL.run("cpu", {**good.inputs, "model": np.frombuffer(data[:cut], np.uint8)}, good.params)


def field(number: int, data: bytes) -> bytes:
    """Of a message in a message, in the wire format of Protocol Buffers."""
    size, length = len(data), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + data


def test_a_model_with_any_bytes_changed_is_refused_or_described_never_more() -> None:
    data, rng, seen = dense(np.random.default_rng(3), (6, 6)), np.random.default_rng(9), set()
    for _ in range(600):
        broken = np.frombuffer(data, np.uint8).copy()
        broken[rng.integers(0, len(data), int(rng.integers(1, 6)))] = rng.integers(0, 256)
        try:
            seen.add(type(inspect(broken.tobytes())).__name__)
        except BadInput:
            seen.add("BadInput")
    assert seen == {"Facts", "BadInput"}


@given(st.text(max_size=400) | st.binary(max_size=400).map(lambda data: data.decode("latin-1")))
def test_any_text_as_a_signature_is_a_problem_and_no_error(text: str) -> None:
    (problem,) = KERNEL.check({"model": ArrayMeta("uint8", (9,))}, {"signature": text})
    assert problem.field == "params.signature"


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_a_signature_with_any_characters_changed_is_a_problem_or_a_signature(at: int, new: bytes) -> None:
    text = sample.signature().text()
    start = at % len(text)
    broken = text[:start] + new.decode("latin-1") + text[start + len(new) :]
    metas = {"model": ArrayMeta("uint8", (9,)), "x": ArrayMeta("float32", (2, 32, 12, 12))}
    for problem in KERNEL.check(metas, {"signature": broken}):
        assert problem.remedy


def test_deep_nesting_is_refused() -> None:
    graph = b""
    for _ in range(200):
        graph = field(1, field(5, field(6, graph)))  # a node in it, an attribute of that, a graph in the attribute
    with pytest.raises(BadInput, match="not an ONNX model"):
        inspect(field(7, graph))


# What is refused of a signature -------------------------------------------------------------------------------------


def signed(**changes: Any) -> dict[str, Any]:
    return {"signature": msgspec.structs.replace(sample.signature(), **changes).text()}


def tensor(**changes: Any) -> signature.Tensor:
    return signature.Tensor(**{"name": "x", "dtype": "float32", "shape": (32, 12, 12), **changes})


BAD_PARAMS: list[dict[str, Any]] = [
    {"signature": ""},
    {"signature": "{}"},
    {"signature": "[" * 10_000},
    {"signature": '{"inputs":' * 500},
    {"signature": "x" * (signature.SIGNATURE_CHARS_MAX + 1)},
    signed(flops=0.0),
    signed(flops=float("nan")),
    signed(flops=1e15),
    signed(memory_bytes=-1),
    signed(mode="other"),
    signed(inputs={}),
    signed(inputs={"x": tensor(dtype="object")}),
    signed(inputs={"x": tensor(shape=(2**31, 2**31))}),
    signed(inputs={"x": tensor(shape=(1,) * 8)}),
    signed(inputs={"x": tensor(whole=True)}),
    signed(inputs={"model": tensor()}),
    signed(inputs={"X": tensor()}),
    signed(inputs={"a": tensor(), "b": tensor()}),
    signed(inputs={"x": tensor(name="a\nb")}),
    signed(outputs={"y": tensor(whole=True)}),
    signed(outputs={}),
]


@pytest.mark.parametrize("params", BAD_PARAMS, ids=range(len(BAD_PARAMS)))
def test_bad_signatures_are_refused_from_their_form_alone(params: dict[str, Any]) -> None:
    metas = {"model": ArrayMeta("uint8", (9,)), "x": ArrayMeta("float32", (2, 32, 12, 12))}
    (problem,) = KERNEL.check(metas, params)
    assert problem.field == "params.signature"
    assert problem.remedy


@pytest.mark.parametrize(
    ("metas", "field"),
    [
        ({"x": ArrayMeta("float64", (2, 32, 12, 12))}, "inputs.x.dtype"),
        ({"x": ArrayMeta("float32", (2, 32, 12, 13))}, "inputs.x.shape"),
        ({"x": ArrayMeta("float32", (0, 32, 12, 12))}, "inputs.x.shape"),
        ({"x": ArrayMeta("float32", (-2, 32, 12, 12))}, "inputs.x.shape"),
        ({"x": ArrayMeta("float32", (10**5000, 32, 12, 12))}, "inputs.x.shape"),
        ({"x": ArrayMeta("float32", (10**9, 32, 12, 12))}, "inputs.x.shape"),
        ({"x": ArrayMeta("float32", ())}, "inputs.x.shape"),
        ({}, "inputs.x"),
        ({"x": ArrayMeta("float32", (2, 32, 12, 12)), "z": ArrayMeta("float32", (2,))}, "inputs.z"),
        ({"x": ArrayMeta("float32", (2, 32, 12, 12)), "model": ArrayMeta("int8", (9,))}, "inputs.model.dtype"),
        ({"x": ArrayMeta("float32", (2, 32, 12, 12)), "model": ArrayMeta("uint8", (2**30,))}, "inputs.model.shape"),
    ],
)
def test_arrays_that_are_not_those_of_the_signature_are_named(metas: dict[str, ArrayMeta], field: str) -> None:
    problems = KERNEL.check({"model": ArrayMeta("uint8", (9,)), **metas}, signed())
    assert [problem.field for problem in problems] == [field]


def test_no_signature_and_no_model_are_told_of() -> None:
    assert {p.field for p in KERNEL.check({}, {})} == {"params.signature", "inputs.model"}


LIES: list[tuple[dict[str, Any], str]] = [
    ({"flops": 1e6}, "operations"),
    ({"outputs": {"y": signature.Tensor(name="y", dtype="float32", shape=(11,))}}, "its signature says"),
    ({"outputs": {"y": signature.Tensor(name="y", dtype="float64", shape=(10,))}}, "its signature says"),
    ({"outputs": {"y": signature.Tensor(name="other", dtype="float32", shape=(10,))}}, "its signature says"),
    ({"inputs": {"x": tensor(name="other")}}, "its signature says"),
]


@pytest.mark.parametrize(("lie", "said"), LIES)
def test_a_model_is_held_to_its_signature_before_a_unit_is_run(lie: dict[str, Any], said: str) -> None:
    inputs, _ = KERNEL.example(np.random.default_rng(1), 2)
    with pytest.raises(BadInput, match=said):
        KERNEL.run("cpu", inputs, signed(**lie))


def test_moved_bytes_are_held_to_the_signature_too() -> None:
    wide = of_nodes(RELU, width=10**6)
    job = ModelJob.of(wide, x=np.zeros((2, 10**6), np.float32))
    found = signature.decode(job.params["signature"])
    job.params = {"signature": msgspec.structs.replace(found, bytes_moved=1e6).text()}
    with pytest.raises(BadInput, match="bytes"):
        job.run()


# How a batch is divided ---------------------------------------------------------------------------------------------


def test_rows_that_know_of_each_other_are_refused_by_sdk_and_worker() -> None:
    """Standardised over the batch: every chunk would be another answer."""
    model = of_nodes(
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1), helper.make_node("Sub", ["x", "m"], ["y"])
    )
    inputs = {"x": X, "model": np.frombuffer(model, np.uint8)}
    with pytest.raises(BadInput, match="depends on those beside it"):
        describe(model, {"x": X})
    job = ModelJob(inputs, {"signature": describe(model, {"x": X[:1]}).signature.text()})
    with pytest.raises(BadInput, match="depends on those beside it"):
        job.run()


def test_a_model_of_one_row_at_a_time_takes_a_batch_one_by_one() -> None:
    model = made([RELU], {"x": (F32, [1, 6])}, {"y": (F32, [1, 6])}).SerializeToString()
    job = ModelJob.of(model, x=X)
    assert signature.decode(job.params["signature"]).mode == "row"
    np.testing.assert_array_equal(job.checked()["y"], np.maximum(X, 0))


def test_a_model_without_a_batch_takes_a_stack_and_whole_inputs() -> None:
    model = made(
        [helper.make_node("MatMul", ["a", "w"], ["y"])],
        {"a": (F32, [4, 6]), "w": (F32, [6, 3])},
        {"y": (F32, [4, 3])},
    ).SerializeToString()
    a, w = RNG.standard_normal((7, 4, 6), dtype=np.float32), RNG.standard_normal((6, 3), dtype=np.float32)
    job = ModelJob.of(model, a=a, w=w)
    found = signature.decode(job.params["signature"])
    assert (found.mode, [name for name, one in found.inputs.items() if one.whole]) == ("stack", ["w"])
    np.testing.assert_allclose(job.checked()["y"], a @ w, rtol=1e-4, atol=1e-5)
    chunk, _ = KERNEL.subproblem(job.inputs, job.params, 2, 5)
    assert chunk["w"] is w
    np.testing.assert_array_equal(chunk["a"], a[2:5])


def test_an_open_axis_that_is_no_batch_is_named_whole_by_hand() -> None:
    model = made(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (F32, ["n", 6]), "w": (F32, ["k", 3])},
        {"y": (F32, ["n", 3])},
    ).SerializeToString()
    w = RNG.standard_normal((6, 3), dtype=np.float32)
    with pytest.raises(BadInput, match="whole="):
        describe(model, {"x": X, "w": w})
    np.testing.assert_allclose(ModelJob.of(model, ["w"], x=X, w=w).checked()["y"], X @ w, rtol=1e-4, atol=1e-5)


DESCRIBED: list[tuple[dict[str, Any], str]] = [
    ({"x": X, "more": X}, "takes nothing named 'more'"),
    ({}, "input x is missing"),
    ({"x": X.astype(np.float64)}, "convert it"),
    ({"x": X[:, :5]}, "has shape"),
    ({"x": X[:0]}, "no|0"),
]


@pytest.mark.parametrize(("arrays", "said"), DESCRIBED, ids=[said for _, said in DESCRIBED])
def test_arrays_that_a_model_does_not_take_are_told_of_in_the_model_s_own_words(
    arrays: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        describe(of_nodes(RELU), arrays)


@pytest.mark.parametrize(
    "names", [["input.1", "INPUT.1", "input_1"], ["模型", "", "9"], ["model", "signature", "x" * 90]]
)
def test_names_become_names_that_the_wire_carries(names: list[str]) -> None:
    wire = signature.wire_names(names)
    assert len(set(wire.values())) == len(names)
    assert not {"model", "signature"} & set(wire.values())


@given(st.lists(st.text(max_size=80), unique=True, max_size=12))
def test_any_names_become_names_that_the_wire_carries(names: list[str]) -> None:
    wire = signature.wire_names(names)
    assert len(set(wire.values())) == len(names)
    assert all(name[0].isascii() and name[0].islower() and len(name) <= 64 for name in wire.values())


def test_outputs_are_known_by_the_model_s_own_names_too() -> None:
    model = made([helper.make_node("Relu", ["x"], ["out.1/Y"])], {"x": (F32, ["n", 6])}, {"out.1/Y": (F32, ["n", 6])})
    job = ModelJob.of(model.SerializeToString(), x=X)
    assert list(job.checked()) == ["out_1_y"]
    assert KERNEL.own_names(job.params) == {"out_1_y": "out.1/Y"}


# The provider -------------------------------------------------------------------------------------------------------


def test_the_cuda_back_end_computes_on_a_card_or_not_at_all() -> None:
    inputs, params = KERNEL.example(np.random.default_rng(1), 2)
    with pytest.raises(LookupError, match="CUDAExecutionProvider"):
        KERNEL.run("cuda", inputs, params)
    with pytest.raises(LookupError, match="CUDAExecutionProvider"):
        KERNEL.warm_up("cuda", metas_of(inputs), params)


def test_libraries_are_loaded_before_time_is_counted() -> None:
    code = (
        "import sys; from qubix_kernels import get; kernel = get('onnx'); before = 'onnxruntime' in sys.modules\n"
        "kernel.warm_up('cpu', {}, {}); print(before, 'onnxruntime' in sys.modules, 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "True", "True"]


def test_a_provider_that_is_there_but_leaves_the_work_to_the_cpu_is_found_out() -> None:
    """This one takes no ordinary operator, as CUDA takes none that it lacks: onnxruntime says nothing."""
    with pytest.raises(session.NoProvider, match="would run elsewhere"):
        session.Session(sample.network(RNG), "AzureExecutionProvider", {})


def test_an_unknown_back_end_is_named() -> None:
    inputs, params = KERNEL.example(np.random.default_rng(1), 2)
    with pytest.raises(LookupError, match="abacus"):
        KERNEL.run("abacus", inputs, params)


@pytest.mark.parametrize(
    ("placed", "astray"),
    [
        ([("CUDA", "Conv"), ("CPU", "Shape"), ("CUDA", "Relu")], []),
        ([("CUDA", "Relu"), ("CPU", "Conv")], ["Conv"]),
        ([("CPU", "Shape"), ("CPU", "Relu")], ["Relu", "Shape"]),
        ([], []),
    ],
)
def test_heavy_work_elsewhere_is_no_work_of_the_provider(placed: list[tuple[str, str]], astray: list[str]) -> None:
    assert session.misplaced(placed, "CUDA") == astray


def test_a_session_is_kept_for_the_next_chunk_and_never_for_another_model() -> None:
    job, other = (ModelJob.of(dense(np.random.default_rng(seed), (6, 6)), x=X) for seed in (1, 2))
    first = job.run()
    changed_bytes = job.inputs["model"].copy()
    np.testing.assert_array_equal(job.run()["y"], first["y"])
    assert not np.array_equal(other.run()["y"], first["y"])
    job.inputs["model"] = changed_bytes
    np.testing.assert_array_equal(job.run()["y"], first["y"])
    changed_bytes[:] = other.inputs["model"]
    np.testing.assert_array_equal(job.run()["y"], other.run()["y"])


def test_metas_of_the_example_are_right_for_every_size() -> None:
    for scale in (1, 17, 1024):
        inputs, params = KERNEL.example(np.random.default_rng(1), scale)
        assert KERNEL.output_metas(metas_of(inputs), params) == {"y": ArrayMeta("float32", (scale, 10))}
