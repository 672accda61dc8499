# SPDX-License-Identifier: Apache-2.0
"""An uploaded model, looked at before anything runs: what is refused, and what it takes and gives. Needs `onnx`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import google.protobuf.message
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

from qubix_kernels.onnx.refusal import Refused
from qubix_protocol.arrays import DTYPES
from qubix_protocol.units import INPUTS_MAX

NODES_MAX: Final = 100_000
GRAPHS_MAX: Final = 2_000
_ELEMENTS_MAX: Final = 2**31
_OPSETS: Final = {"": (7, onnx.defs.onnx_opset_version()), "ai.onnx.ml": (1, 5)}
_IR_MIN: Final = 3
_ANEW: Final = "export it anew"
_DENSE: Final = "store them dense"
RANDOM: Final = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)


@dataclass(frozen=True)
class Port:
    """An input or output as the model declares it. A size is None when it is open; so is `dims` without a shape.
    `labels` has the model's own names of open sizes, where it gives them."""

    name: str
    dtype: str
    dims: tuple[int | None, ...] | None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def inspect(data: bytes) -> Facts:
    """Raises `Refused`, which says why and what to do about it."""
    return facts_of(checked(data))


def facts_of(found: ModelProto) -> Facts:
    """Of a model that was checked."""
    graph = found.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_port(value, "input") for value in graph.input if value.name not in weights)
    outputs = tuple(_port(value, "output") for value in graph.output)
    if not 1 <= len(inputs) < INPUTS_MAX or not 1 <= len(outputs) <= INPUTS_MAX:
        raise Refused(
            "ports",
            f"the model has {len(inputs)} inputs and {len(outputs)} outputs; 1 to {INPUTS_MAX - 1} are allowed",
            "join some of them, or leave out outputs that nobody reads",
        )
    return Facts(inputs, outputs)


def checked(data: bytes) -> ModelProto:
    """The parsed model, when nothing in it is refused."""
    try:
        found = onnx.load_model_from_string(data)
    except (google.protobuf.message.DecodeError, RecursionError, ValueError) as error:
        raise Refused(
            "not_a_model", f"this is not an ONNX model ({str(error)[:200]})", "give the .onnx file"
        ) from error
    _check_versions(found)
    if found.functions or found.training_info:
        raise Refused(
            "functions",
            "the model has functions or training steps of its own",
            "onnx.inliner.inline_local_functions(model)",
        )
    nodes = 0
    for graphs, graph in enumerate(_graphs(found.graph), start=1):
        nodes += len(graph.node)
        if nodes > NODES_MAX or graphs > GRAPHS_MAX:
            raise Refused(
                "too_large",
                f"the model has more than {NODES_MAX} operations or {GRAPHS_MAX} inner graphs",
                "export loops as loops, or divide the model",
            )
        _check_graph(graph)
    return found


def _check_versions(found: ModelProto) -> None:
    if not _IR_MIN <= found.ir_version <= onnx.IR_VERSION:
        raise Refused("version", f"IR version {found.ir_version} is not one of {_IR_MIN} to {onnx.IR_VERSION}", _ANEW)
    versions = {_plain(entry.domain): entry.version for entry in found.opset_import}
    if "" not in versions:
        raise Refused("version", "the model does not say which ai.onnx operator set it uses", _ANEW)
    for domain, (low, high) in _OPSETS.items():
        if not low <= versions.get(domain, low) <= high:
            name = domain or "ai.onnx"
            raise Refused(
                "version",
                f"operator set {name} {versions[domain]} is not one of {low} to {high}",
                "export it for one of them",
            )


def _check_graph(graph: GraphProto) -> None:
    if graph.sparse_initializer:
        raise Refused("sparse_weights", "the model has sparse weights", _DENSE)
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for node in graph.node:
        if _plain(node.domain) not in _OPSETS:
            raise Refused(
                "unsupported_operator",
                f"operator {node.op_type:.80} is of domain {node.domain:.80}; only ai.onnx and ai.onnx.ml are run",
                "export the model without custom operators and without onnxruntime's own optimisation",
            )
        if node.op_type in RANDOM or (node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]):
            raise Refused(
                "random_operator",
                f"operator {node.op_type} draws random numbers, so nobody could check its outputs",
                "export it for inference, or give the random numbers as an input",
            )
        for attribute in node.attribute:
            _check_attribute(attribute)


def _check_attribute(attribute: AttributeProto) -> None:
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
        raise Refused("sparse_weights", "the model has sparse weights", _DENSE)
    for tensor in (attribute.t, *attribute.tensors):
        _check_tensor(tensor)


def _check_tensor(tensor: TensorProto) -> None:
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise Refused(
            "external_data",
            f"weights {tensor.name!r:.80} are outside the file",
            "onnx.save(model, file, save_as_external_data=False)",
        )
    if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) > _ELEMENTS_MAX:
        raise Refused("impossible_shape", f"weights {tensor.name!r:.80} have an impossible shape", _ANEW)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """It and every graph inside its operators. Protocol Buffers bound the depth."""
    left = [graph]
    while left:
        one = left.pop()
        yield one
        for node in one.node:
            for attribute in node.attribute:
                left += [attribute.g] if attribute.HasField("g") else []
                left += attribute.graphs


def graphs_of(found: ModelProto) -> Iterator[GraphProto]:
    return _graphs(found.graph)


def stored(found: ModelProto) -> Iterator[TensorProto]:
    """The weights of it and of every inner graph."""
    for graph in _graphs(found.graph):
        yield from graph.initializer


def weights(found: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that is stored in the model: weights and constants, of inner graphs too."""
    for graph in _graphs(found.graph):
        yield from graph.initializer
        for node in graph.node:
            if node.op_type == "Constant":
                yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _port(value: ValueInfoProto, kind: str) -> Port:
    tensor = value.type.tensor_type
    dtype = _dtype(tensor.elem_type)
    if not value.type.HasField("tensor_type") or dtype not in DTYPES:
        raise Refused(
            "number_type",
            f"{kind} {value.name!r:.80} is not an array of a known number type",
            "convert text and sequences outside of the model",
        )
    if not tensor.HasField("shape"):
        return Port(value.name, dtype, None)
    dims = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in tensor.shape.dim
    )
    if any(size is not None and size > _ELEMENTS_MAX for size in dims):
        raise Refused("impossible_shape", f"{kind} {value.name!r:.80} has an impossible shape", _ANEW)
    return Port(value.name, dtype, dims, tuple(dim.dim_param for dim in tensor.shape.dim))


def _dtype(element: int) -> str:
    try:
        found: Any = helper.tensor_dtype_to_np_dtype(element)
    except (KeyError, ValueError):
        return ""
    return str(found.name)


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
