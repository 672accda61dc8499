# SPDX-License-Identifier: Apache-2.0
"""What a model's file says of itself, as text that is safe to show; and the shapes that it declares for its inputs."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

import numpy as np
from onnx import ModelProto

from qubix_kernels.onnx import model
from qubix_kernels.onnx.model import Facts, Port
from qubix_kernels.onnx.signature import wire_names
from qubix_protocol.arrays import Array
from qubix_protocol.models import OPERATORS_MAX, ModelCard, ModelPort

_LABEL: Final = 256
_SIZE: Final = 64
_COUNT_MAX: Final = 2**53
_ROWS: Final = 2
"""Of what is made up: two show whether rows know of each other."""


def card_of(found: ModelProto, facts: Facts, size_bytes: int) -> ModelCard:
    operators = Counter(node.op_type for graph in model.graphs_of(found) for node in graph.node)
    parameters = sum(math.prod(tensor.dims) for tensor in model.stored(found))
    inputs, outputs = wire_names(port.name for port in facts.inputs), wire_names((p.name for p in facts.outputs), ())
    return ModelCard(
        size_bytes=size_bytes,
        ir_version=found.ir_version,
        opsets={plain(entry.domain): min(max(0, entry.version), _COUNT_MAX) for entry in found.opset_import[:8]},
        producer=plain(f"{found.producer_name[:_LABEL]} {found.producer_version[:_LABEL]}".strip()),
        inputs=_ports(facts.inputs, inputs),
        outputs=_ports(facts.outputs, outputs),
        parameters=min(parameters, _COUNT_MAX),
        nodes=operators.total(),
        operators={plain(name): count for name, count in operators.most_common(OPERATORS_MAX)},
    )


def plain(text: str, longest: int = _LABEL) -> str:
    """A stranger's words without what a terminal would obey or a database refuse."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+", " ", text[:longest])


def assumed(facts: Facts) -> dict[str, Array] | tuple[str, ...]:
    """Zeros of the declared shapes, two units of them where axis 0 is open and a stack of one where nothing is; or the
    names of the inputs whose shapes are open elsewhere."""
    needs = tuple(port.name for port in facts.inputs if port.dims is None or None in port.dims[1:])
    if needs:
        return needs
    stacked = not any(port.dims and port.dims[0] in (None, 1) for port in facts.inputs)
    return {port.name: _zeros(port, stacked) for port in facts.inputs}


def _zeros(port: Port, stacked: bool) -> Array:
    shape = [_ROWS if size is None else size for size in port.dims or ()]
    return np.broadcast_to(np.zeros((), port.dtype), [1, *shape] if stacked else shape)


def _ports(ports: Iterable[Port], wire: dict[str, str]) -> tuple[ModelPort, ...]:
    return tuple(
        ModelPort(name=plain(port.name), wire=wire[port.name], dtype=port.dtype, dims=_dims(port)) for port in ports
    )


def _dims(port: Port) -> tuple[int | str, ...] | None:
    if port.dims is None:
        return None
    return tuple(
        (plain(label, _SIZE) or "?") if size is None else size
        for size, label in zip(port.dims[:_SIZE], port.labels[:_SIZE], strict=True)
    )
