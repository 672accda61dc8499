# SPDX-License-Identifier: Apache-2.0
"""A small convolutional network as an honest example of a model: for measuring a machine, and for tests.

It is written here field by field in Protocol Buffers' wire format (onnx.proto names the numbers), since the processes
that ask for examples have no `onnx` package in memory.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from qubix_kernels.kernel import ParamValue
from qubix_kernels.onnx import work
from qubix_kernels.onnx.signature import MODEL, PARAM, Signature, Tensor
from qubix_protocol.arrays import Array

_CHANNELS: Final = (32, 64, 64)
_SIDE: Final = 12
_CLASSES: Final = 10
_FLOAT: Final = 1
_INTS, _INT = 7, 2


def example(rng: np.random.Generator, scale: int) -> tuple[dict[str, Array], dict[str, ParamValue]]:
    """`scale` pictures of 32 × 12 × 12 numbers and the scores of ten classes for each."""
    pictures = rng.standard_normal((scale, _CHANNELS[0], _SIDE, _SIDE), dtype=np.float32)
    model = np.frombuffer(network(rng), dtype=np.uint8)
    return {MODEL: model, "x": pictures}, {PARAM: signature().text()}


def signature() -> Signature:
    """What `describe` would find out by running it; a test compares the two."""
    counted = work.total(_ops(), together=True)
    return Signature(
        mode="rows",
        inputs={"x": Tensor(name="x", dtype="float32", shape=(_CHANNELS[0], _SIDE, _SIDE))},
        outputs={"y": Tensor(name="y", dtype="float32", shape=(_CLASSES,))},
        **counted._asdict(),
    )


def network(rng: np.random.Generator) -> bytes:
    """Two convolutions, a mean over the picture, one dense layer."""
    first, middle, last = _CHANNELS
    weights = [
        _tensor("w1", _drawn(rng, (middle, first, 3, 3))),
        _tensor("w2", _drawn(rng, (last, middle, 3, 3))),
        _tensor("w3", _drawn(rng, (last, _CLASSES))),
    ]
    same = _field(5, _text(1, "pads") + b"".join(_number(8, 1) for _ in range(4)) + _number(20, _INTS))
    nodes = [
        _node("Conv", ["x", "w1"], "c1", same),
        _node("Relu", ["c1"], "r1"),
        _node("Conv", ["r1", "w2"], "c2", same),
        _node("Relu", ["c2"], "r2"),
        _node("GlobalAveragePool", ["r2"], "mean"),
        _node("Flatten", ["mean"], "flat"),
        _node("Gemm", ["flat", "w3"], "y"),
    ]
    graph = b"".join(_field(1, node) for node in nodes) + _text(2, "example")
    graph += b"".join(_field(5, one) for one in weights)
    graph += _field(11, _value("x", ["n", first, _SIDE, _SIDE])) + _field(12, _value("y", ["n", _CLASSES]))
    return _number(1, 8) + _field(7, graph) + _field(8, _text(1, "") + _number(2, 13))


def _ops() -> list[work.Op]:
    """The operations of one row, as a trial sees them."""
    first, middle, last = _CHANNELS
    x, c1, c2 = ((1, channels, _SIDE, _SIDE) for channels in _CHANNELS)
    mean, flat, y = (1, last, 1, 1), (1, last), (1, _CLASSES)
    return [
        _op("Conv", [x, (middle, first, 3, 3)], c1),
        _op("Relu", [c1], c1),
        _op("Conv", [c1, (last, middle, 3, 3)], c2),
        _op("Relu", [c2], c2),
        _op("GlobalAveragePool", [c2], mean),
        _op("Flatten", [mean], flat),
        _op("Gemm", [flat, (last, _CLASSES)], y),
    ]


def _op(kind: str, inputs: list[work.Shape], output: work.Shape) -> work.Op:
    first, *weights = inputs
    size, stored = (4 * sum(int(np.prod(shape)) for shape in shapes) for shapes in ((first, output), weights))
    return work.Op(kind, tuple(inputs), (output,), size, stored)


def _drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Of a size that keeps what goes through the layer as large as it was."""
    fan = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    drawn: Array = rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / fan))
    return drawn


# onnx.proto, as far as it is needed ---------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _field(field, text.encode())


def _tensor(name: str, array: Array) -> bytes:
    dims = b"".join(_number(1, size) for size in array.shape)
    return dims + _number(2, _FLOAT) + _text(8, name) + _field(9, array.astype("<f4").tobytes())


def _node(kind: str, inputs: Sequence[str], output: str, attributes: bytes = b"") -> bytes:
    return b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(4, kind) + attributes


def _value(name: str, dims: Sequence[int | str]) -> bytes:
    sizes = [_number(1, dim) if isinstance(dim, int) else _text(2, dim) for dim in dims]
    shape = b"".join(_field(1, size) for size in sizes)
    return _text(1, name) + _field(2, _field(1, _number(1, _FLOAT) + _field(2, shape)))
