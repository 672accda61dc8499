# SPDX-License-Identifier: Apache-2.0
"""Models that are small on disk and endless to run: each ends within its limits, and the next honest model runs."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qubix_kernels import get
from qubix_kernels.box import machine
from qubix_kernels.box.rules import Limits
from qubix_kernels.onnx.signature import Signature, Tensor
from qubix_kernels.tasks import ChunkDone, Event, RunDone, RunTask, TaskFailed
from qubix_kernels.wire import Cause
from qubix_kernels.zygote import Zygote
from qubix_protocol.arrays import to_npy, unpack_arrays
from tests.kernels.models_world import F32, of_nodes
from tests.kernels.worker_world import DEADLINE_S, hear_all, say

GIB = 1024**3
CPU_S = 3
HONEST_CPU_S = 30
KERNEL = get("onnx")


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    found = machine.found_here()
    assert found.kind == "box", found.reason
    made_here = Zygote.start(isolation=found, folders=[tmp_path_factory.getbasetemp()])
    yield made_here
    made_here.close()


def constant(name: str, *values: int) -> list[object]:
    tensor = numpy_helper.from_array(np.array(values, np.int64), name)
    return [helper.make_node("Constant", [], [name], value=tensor)]


def with_first(*nodes: object, last: str) -> bytes:
    """`last` may have any shape; its first element is added to x."""
    tail = [
        *constant("one", 1),
        helper.make_node("Reshape", [last, "flat"], ["line"]),
        helper.make_node("Slice", ["line", "nought", "one"], ["head"]),
        helper.make_node("Add", ["x", "head"], ["y"]),
    ]
    return of_nodes(*constant("flat", -1), *constant("nought", 0), *nodes, *tail)  # type: ignore[arg-type]


def terabytes() -> bytes:
    return with_first(*constant("s", 2**20, 2**20), helper.make_node("ConstantOfShape", ["s"], ["z"]), last="z")


def terabytes_by_the_data() -> bytes:
    """Nothing can be worked out before it runs."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Expand", ["sum", "s"], ["z"]),
    ]
    return with_first(*constant("s", 2**20, 2**20), *nodes, last="z")


def doubling() -> bytes:
    nodes = [helper.make_node("Concat", [f"z{i}", f"z{i}"], [f"z{i + 1}"], axis=0) for i in range(40)]
    return with_first(helper.make_node("Identity", ["x"], ["z0"]), *nodes, last="z40")


def endless_list() -> bytes:
    nodes = [*constant("a", 0), *constant("b", 2**60), *constant("c", 1)]
    flat = [helper.make_node("Squeeze", [name], [f"{name}0"]) for name in "abc"]
    cast = helper.make_node("Cast", ["r"], ["z"], to=F32)
    return with_first(*nodes, *flat, helper.make_node("Range", ["a0", "b0", "c0"], ["r"]), cast, last="z")


def endless_loop() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", F32, None),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("w", F32, None)],
    )
    always = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True), "yes"))
    return of_nodes(always, helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body))


def weights_that_are_not_there() -> bytes:
    """Six gigabytes are declared, sixteen bytes are there."""
    model = ModelProto.FromString(with_first(helper.make_node("MatMul", ["x", "w"], ["z"]), last="z"))
    tensor = model.graph.initializer.add()
    tensor.name, tensor.data_type, tensor.raw_data = "w", F32, b"\0" * 16
    tensor.dims.extend([6, 2**28])
    return bytes(model.SerializeToString())


BOMBS = [terabytes, terabytes_by_the_data, doubling, endless_list, endless_loop, weights_that_are_not_there]


def attempt(
    zygote: Zygote, folder: Path, model: bytes, signature: str, x: np.ndarray, cpu_s: int
) -> tuple[list[Event], Cause]:
    paths = {"model": folder / "model.npy", "x": folder / "x.npy"}
    paths["model"].write_bytes(to_npy(np.frombuffer(model, np.uint8)))
    paths["x"].write_bytes(to_npy(x))
    task = RunTask(
        kernel="onnx",
        backend="cpu",
        params={"signature": signature},
        inputs={name: str(path) for name, path in paths.items()},
        ranges=((0, len(x)),),
        chunk_units=len(x),
        out_dir=str(folder),
    )
    limits = Limits(memory_bytes=2 * GIB, cpu_s=cpu_s, wall_s=3 * cpu_s, disk_bytes=256 * 1024**2)
    worker = zygote.fork(scratch=folder, out=folder, limits=limits)
    with worker.sock:
        say(worker.sock, task)
        events = hear_all(worker.sock)
    deadline_s = time.monotonic() + DEADLINE_S
    while zygote.status(worker) is None:
        assert time.monotonic() < deadline_s, "the worker did not end"
        time.sleep(0.01)
    return events, zygote.end_of(worker).cause


def described() -> str:
    tensor = {name: Tensor(name=name, dtype="float32", shape=(6,)) for name in "xy"}
    return Signature(
        mode="rows",
        inputs={"x": tensor["x"]},
        outputs={"y": tensor["y"]},
        flops=1e6,
        bytes_moved=1e6,
        memory_bytes=10**6,
    ).text()


@pytest.mark.parametrize("bomb", BOMBS, ids=[bomb.__name__ for bomb in BOMBS])
def test_a_bomb_ends_within_its_limits_and_the_next_model_runs(
    zygote: Zygote, tmp_path: Path, bomb: Callable[[], bytes]
) -> None:
    data = bomb()
    assert len(data) < 10_000
    events, cause = attempt(zygote, tmp_path, data, described(), np.ones((3, 6), np.float32), CPU_S)
    print("CAUSE", events, cause)
    if events:
        (event,) = events
        assert isinstance(event, TaskFailed), event
        assert event.code in ("bad_input", "out_of_memory"), event
    else:
        assert cause, "it was ended, by a limit"
    inputs, params = KERNEL.example(np.random.default_rng(1), 3)
    chunk, done = attempt(
        zygote, tmp_path, inputs["model"].tobytes(), str(params["signature"]), inputs["x"], HONEST_CPU_S
    )[0]
    assert isinstance(chunk, ChunkDone)
    assert isinstance(done, RunDone)
    found = unpack_arrays(Path(chunk.path).read_bytes())
    assert KERNEL.verify(inputs, params, found, np.random.default_rng(2)).accepted
