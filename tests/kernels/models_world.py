# SPDX-License-Identifier: Apache-2.0
"""Models for tests: made node by node, or found in a wheel, and a job of one."""

import importlib.util
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from qubix_kernels import Verdict, get
from qubix_kernels.kernel import metas_of
from qubix_kernels.onnx.describe import describe
from qubix_kernels.onnx.model import weights as weights_of
from qubix_protocol.arrays import Array

KERNEL = get("onnx")
F32 = TensorProto.FLOAT


def made(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[Any]]],
    outputs: Mapping[str, tuple[int, Sequence[Any]]],
    weights: Mapping[str, Array] | None = None,
    **more: Any,
) -> ModelProto:
    """`inputs` and `outputs`: name → (element type, shape)."""
    values = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in one.items()]
        for one in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "test", values[0], values[1], tensors)
    return helper.make_model(
        graph, **{"opset_imports": [helper.make_opsetid("", 17)], "ir_version": 8, "functions": [], **more}
    )


def of_nodes(*nodes: NodeProto, weights: Mapping[str, Array] | None = None, width: int = 6) -> bytes:
    """x (n, width) float32 → y (n, width) float32."""
    shapes = {"x": (F32, ["n", width])}, {"y": (F32, ["n", width])}
    return bytes(made(nodes, *shapes, weights).SerializeToString())


def dense(rng: np.random.Generator, sizes: Sequence[int] = (24, 48, 16), dtype: Any = np.float32) -> bytes:
    """Dense layers with tanh between: x → y."""
    kind, nodes, weights, at = helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [], {}, "x"
    for i, (wide, thin) in enumerate(itertools.pairwise(sizes)):
        weights[f"w{i}"] = (rng.standard_normal((wide, thin)) / np.sqrt(wide)).astype(dtype)
        to = "y" if i == len(sizes) - 2 else f"h{i}"
        nodes += [helper.make_node("MatMul", [at, f"w{i}"], [f"m{i}"]), helper.make_node("Tanh", [f"m{i}"], [to])]
        at = to
    shapes = {"x": (kind, ["n", sizes[0]])}, {"y": (kind, ["n", sizes[-1]])}
    return bytes(made(nodes, *shapes, weights).SerializeToString())


def halved(model: bytes) -> bytes:
    """With weights of half the precision."""
    found = ModelProto.FromString(model)
    for tensor in weights_of(found):
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16).astype(np.float32), tensor.name))
    return bytes(found.SerializeToString())


@dataclass
class ModelJob:
    """A job of the kernel `onnx`, with its inputs by their wire names."""

    inputs: dict[str, Array]
    params: dict[str, Any]

    @classmethod
    def of(cls, model: bytes, whole: Collection[str] = (), **arrays: Array) -> "ModelJob":
        return cls.named(model, arrays, whole)

    @classmethod
    def named(cls, model: bytes, arrays: Mapping[str, Array], whole: Collection[str] = ()) -> "ModelJob":
        found = describe(model, arrays, whole)
        inputs = {found.names[name]: array for name, array in arrays.items()}
        job = cls({**inputs, "model": np.frombuffer(model, np.uint8)}, {"signature": found.signature.text()})
        assert KERNEL.check(metas_of(job.inputs), job.params) == ()
        return job

    def run(self) -> dict[str, Array]:
        outputs = KERNEL.run("cpu", self.inputs, self.params)
        assert metas_of(outputs) == KERNEL.output_metas(metas_of(self.inputs), self.params)
        return outputs

    def verdict(self, outputs: Any, seed: int = 1) -> Verdict:
        return KERNEL.verify(self.inputs, self.params, outputs, np.random.default_rng(seed))

    def checked(self) -> dict[str, Array]:
        """Its outputs, after the verifier accepted them."""
        outputs = self.run()
        verdict = self.verdict(outputs)
        assert verdict.accepted, verdict
        return outputs


def in_wheel(package: str, path: str) -> Path:
    """A file that a wheel brought; the package is not imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"install requirements/models.txt: {package} is missing"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / path
