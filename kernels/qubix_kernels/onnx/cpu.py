# SPDX-License-Identifier: Apache-2.0
"""The CPU back end: onnxruntime's own kernels. It is also what checks are made with."""

from qubix_kernels.kernel import Arrays
from qubix_kernels.onnx.cache import runner
from qubix_kernels.onnx.session import CPU
from qubix_kernels.onnx.signature import Signature
from qubix_protocol.arrays import Array


def run(inputs: Arrays, signature: Signature) -> dict[str, Array]:
    """Outputs by wire names. Raises `BadInput` when the model is refused, is not as described, or does not run."""
    return runner(inputs, signature, CPU, {}).run(inputs)
