# SPDX-License-Identifier: Apache-2.0
"""The one runner that a worker keeps: its chunks are of one model, and loading it takes longer than many a chunk."""

from collections.abc import Mapping
from typing import NamedTuple

from qubix_kernels.kernel import Arrays
from qubix_kernels.onnx.rows import Runner, inspected, open_runner
from qubix_kernels.onnx.session import Session
from qubix_kernels.onnx.signature import MODEL, Signature
from qubix_protocol.arrays import Array


class _Kept(NamedTuple):
    """`model` is held so that no other array can take its place in memory."""

    model: Array
    signature: Signature
    provider: str
    runner: Runner


_kept: list[_Kept] = []


def runner(inputs: Arrays, signature: Signature, provider: str, options: Mapping[str, str]) -> Runner:
    """Opened at the first call for a model, then the same one, as long as the array is the same and read-only."""
    model = inputs[MODEL]
    for one in _kept:
        if one.model is model and one.signature == signature and one.provider == provider:
            return one.runner
    _kept.clear()
    found = open_runner(model, signature, inputs, Session(inspected(model, signature), provider, options))
    if not model.flags.writeable:
        _kept.append(_Kept(model, signature, provider, found))
    return found
