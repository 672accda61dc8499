# SPDX-License-Identifier: Apache-2.0
"""An ONNX model and its inputs, as a person has them, to the arrays and the signature of an `onnx` job.

The signature comes from a trial on this machine: one or two units are run here, before anything is uploaded.
"""

from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np

from qubix.errors import BadUsage
from qubix_kernels.kernel import BadInput
from qubix_kernels.onnx.signature import MODEL, PARAM
from qubix_protocol.arrays import Array, ArrayMeta

KERNEL: Final = "onnx"
WHOLE: Final = "whole"
_INSTALL: Final = 'Install it: pip install "qubix[worker]"; or submit from a machine that has it'
REMEDY: Final = "Change the model or what it is given; sdk/README.md has more under Models"


def prepared(given: Mapping[str, Any], forms: Mapping[str, ArrayMeta]) -> tuple[dict[str, Any], dict[str, ArrayMeta]]:
    """`given` and `forms` by the wire's names, with the model's bytes and its signature.

    `whole` in `given` names inputs that every unit gets as they are, as a list or with commas between.
    Raises `BadUsage`, also when onnxruntime is not here to try the model.
    """
    plain = {name: value for name, value in given.items() if name not in (MODEL, PARAM, WHOLE)}
    if MODEL not in given:
        raise BadUsage(MODEL, "onnx needs the model", "Give model=…: the path of an .onnx file, or its bytes")
    data = model_bytes(given[MODEL])
    model = np.frombuffer(data, dtype=np.uint8)
    if PARAM in given:
        return {**plain, MODEL: model, PARAM: given[PARAM]}, dict(forms)
    arrays = {name: _array_of(name, value) for name, value in plain.items()} | {
        name: np.broadcast_to(np.zeros((), meta.dtype), meta.shape) for name, meta in forms.items()
    }
    names, text = _described(data, arrays, listed(given.get(WHOLE, ())))
    sources = {
        names[name]: value if isinstance(value, (str, PathLike)) else arrays[name] for name, value in plain.items()
    }
    return {**sources, MODEL: model, PARAM: text}, {names[name]: meta for name, meta in forms.items()}


def model_bytes(value: Any) -> bytes:
    """Of a path, of bytes, or of an array of them."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        return value.tobytes()
    if not isinstance(value, (str, PathLike)):
        raise BadUsage(
            MODEL, f"model: {type(value).__name__} is no model", "Give the path of an .onnx file, or its bytes"
        )
    try:
        return Path(value).read_bytes()
    except OSError as error:
        remedy = "Give the path of an .onnx file that you may read"
        raise BadUsage(MODEL, f"model: {value}: {error.strerror}", remedy) from None


def _described(data: bytes, arrays: Mapping[str, Array], whole: Collection[str]) -> tuple[dict[str, str], str]:
    try:
        from qubix_kernels.onnx.describe import describe
    except ImportError as error:
        raise BadUsage(MODEL, f"a model is tried here first, and {error.name} is not installed", _INSTALL) from None
    try:
        found = describe(data, arrays, whole)
    except BadInput as error:
        raise BadUsage(MODEL, f"model: {error}", REMEDY) from None
    return found.names, found.signature.text()


def _array_of(name: str, value: Any) -> Array:
    """A file is mapped, not read."""
    if not isinstance(value, (str, PathLike)):
        return np.asarray(value)
    try:
        found: Array = np.load(value, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        remedy = "Give a .npy file as numpy.save writes it"
        raise BadUsage(name, f"{name}: {value}: {getattr(error, 'strerror', None) or error}", remedy) from None
    return found


def listed(whole: Any) -> list[str]:
    """Names in a list, or in a text with commas between."""
    return [name for name in whole.split(",") if name] if isinstance(whole, str) else list(whole)
