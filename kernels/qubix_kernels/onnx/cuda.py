# SPDX-License-Identifier: Apache-2.0
"""The CUDA back end: onnxruntime's CUDA provider, on the one device that the worker sees.

It needs the package `onnxruntime-gpu` in place of `onnxruntime`, and CUDA and cuDNN as that asks for.
"""

from typing import Final

from qubix_kernels.kernel import Arrays
from qubix_kernels.onnx.cache import runner
from qubix_kernels.onnx.session import require
from qubix_kernels.onnx.signature import Signature
from qubix_protocol.arrays import Array

CUDA: Final = "CUDAExecutionProvider"
OPTIONS: Final = {
    "device_id": "0",
    # TF32 keeps 10 bits of 23: a check in float32 would not accept it.
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}


def warm_up() -> None:
    """Raises `NoProvider` where onnxruntime has no CUDA provider."""
    require(CUDA)


def run(inputs: Arrays, signature: Signature) -> dict[str, Array]:
    """As on the CPU; raises `NoProvider` when the card would not be what computes."""
    return runner(inputs, signature, CUDA, OPTIONS).run(inputs)
