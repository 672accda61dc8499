# SPDX-License-Identifier: Apache-2.0
"""What a model's operations cost, from the shapes that went through them: every machine counts alike. Pure."""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

Shape = tuple[int, ...]

NODE_FLOPS: Final = 50_000.0
"""What starting one operation costs, however small it is: some microseconds."""
BYTE_FLOPS: Final = 10.0
"""What moving one byte costs: an operation takes the longer of computing and moving, as its own roof is."""
BATCH_BYTES: Final = 256 * 1024**2
"""What the activations of the rows that run together may take."""
BATCH_MAX: Final = 256
_LIVE: Final = 4
"""So many times the largest operation's tensors are alive at once: branches, joins, and the allocator's slack."""
_DEAR: Final = frozenset(
    [
        "Sigmoid",
        "Tanh",
        "Exp",
        "Log",
        "Softmax",
        "LogSoftmax",
        "Erf",
        "Gelu",
        "Pow",
        "Sin",
        "Cos",
        "Softplus",
        "HardSigmoid",
    ]
)
_DEAR_FLOPS: Final = 10.0
HEAVY: Final = frozenset(
    [
        "Attention",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "Einsum",
        "GRU",
        "Gemm",
        "LSTM",
        "MatMul",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "RNN",
    ]
)
"""Operations that are worth a GPU."""
_RECURRENT: Final = frozenset(["GRU", "LSTM", "RNN"])


class Op(NamedTuple):
    """One operation as it ran. `size_bytes` is of what it read and wrote beside the model's weights."""

    kind: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    size_bytes: int
    weight_bytes: int = 0


class Work(NamedTuple):
    """`flops` has what moving bytes takes in it, where that is longer: one figure that goes with time."""

    flops: float
    bytes_moved: float
    memory_bytes: int


def total(ops: Iterable[Op], *, together: bool) -> Work:
    """Of everything that ran for one unit. Units that run `together` share what weights and starting cost."""
    found = list(ops)
    memory = _LIVE * max((op.size_bytes for op in found), default=0)
    share = batch_of(memory) if together else 1
    moved = [op.size_bytes + op.weight_bytes / share for op in found]
    return Work(
        flops=sum(
            max(_flops(op), BYTE_FLOPS * max(size, _reread(op))) + NODE_FLOPS / share
            for op, size in zip(found, moved, strict=True)
        ),
        bytes_moved=float(sum(moved)),
        memory_bytes=memory,
    )


def batch_of(memory_bytes: int) -> int:
    """How many units of this size run together."""
    return max(1, min(BATCH_MAX, BATCH_BYTES // max(1, memory_bytes)))


def _reread(op: Op) -> float:
    """Bytes of weights that a recurrent operation reads again at each step."""
    return 4.0 * _products(op, 0.0) if op.kind in _RECURRENT and op.inputs else 0.0


def _flops(op: Op) -> float:
    size = float(max((math.prod(shape) for shape in op.outputs), default=0))
    if op.kind in HEAVY and op.inputs:
        return 2.0 * _products(op, size)
    each = _DEAR_FLOPS if op.kind in _DEAR else 1.0
    return each * max([size, *(math.prod(shape) for shape in op.inputs)])


def _products(op: Op, size: float) -> float:
    """Multiplications of a heavy operation, of which each comes with an addition. `size` is that of its output."""
    first, second = op.inputs[0], op.inputs[1] if len(op.inputs) > 1 else ()
    if op.kind == "Conv" or op.kind == "ConvInteger":
        return size * math.prod(second[1:])
    if op.kind == "QLinearConv":
        return size * math.prod(op.inputs[3][1:]) if len(op.inputs) > 3 else size
    if op.kind == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    if op.kind in _RECURRENT:
        steps = math.prod(first[:2])
        return float(steps * sum(math.prod(weights[1:]) for weights in op.inputs[1:3]) * (second[:1] or (1,))[0])
    if op.kind == "Gemm":
        return size * math.prod(first) / max(1, op.outputs[0][0] if op.outputs[0] else 1)
    if op.kind == "Attention":
        keys = second[-2] if len(second) > 1 else 1
        return 2.0 * math.prod(first) * keys
    if op.kind == "Einsum":
        return math.sqrt(size * math.prod([math.prod(shape) for shape in op.inputs])) if second else size
    return size * (first[-1] if first else 1)  # MatMul and its kin
