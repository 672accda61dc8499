# SPDX-License-Identifier: Apache-2.0
"""How far a model carries rounding: it is run with weights and inputs moved at random by a few units in their last
place, and once without optimisation. Another honest machine's result lies about as far away as these do."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from qubix_kernels.kernel import Arrays, BadInput
from qubix_kernels.onnx import model
from qubix_kernels.onnx.rows import Runner
from qubix_kernels.onnx.session import CPU, Session
from qubix_kernels.onnx.signature import MODEL, Signature
from qubix_protocol.arrays import Array

_MOVED: Final = 4
_ULPS: Final = {"float16": 2.0, "float32": 8.0, "float64": 8.0}
_WEIGHTS_LEAST: Final = 32
"""Smaller constants are exponents, scales and sizes, where the slightest change may change what the model is."""


def run(signature: Signature, inputs: Arrays, rng: np.random.Generator) -> Iterator[dict[str, Array]]:
    """Outputs of each probe. A probe that does not run tells nothing, and is left out."""
    data = inputs[MODEL].tobytes()
    with suppress(BadInput):
        yield _runner(data, signature, plain=True).run(inputs)
    for _ in range(_MOVED):
        with suppress(BadInput):
            yield _runner(_moved_model(data, rng), signature).run(_moved_inputs(inputs, rng))


def _runner(data: bytes, signature: Signature, *, plain: bool = False) -> Runner:
    found = Runner(Session(data, CPU, {}, plain=plain), signature)
    found.checked_together = True
    return found


def _moved_model(data: bytes, rng: np.random.Generator) -> bytes:
    found = model.checked(data)
    for tensor in model.weights(found):
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE) and len(tensor.dims) > 1:
            array = numpy_helper.to_array(tensor)
            if array.size >= _WEIGHTS_LEAST:
                tensor.CopyFrom(numpy_helper.from_array(_moved(array, rng), tensor.name))
    plain: bytes = found.SerializeToString()
    return plain


def _moved_inputs(inputs: Arrays, rng: np.random.Generator) -> dict[str, Array]:
    return {
        name: array if name == MODEL or array.dtype.kind != "f" else _moved(array, rng)
        for name, array in inputs.items()
    }


def _moved(array: NDArray[Any], rng: np.random.Generator) -> Array:
    """Each element by up to so many units in its last place, in its own dtype."""
    step = _ULPS[array.dtype.name] * float(np.finfo(array.dtype).eps)
    moved: Array = (array * (1 + step * rng.uniform(-1, 1, array.shape))).astype(array.dtype)
    return moved
