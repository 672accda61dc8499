# SPDX-License-Identifier: Apache-2.0
"""A trial's CUDA back end in Numba's simulator, in a process of its own: `python -m tests.kernels.trial_simulated`.

Prints the digests of a tiny trial in hex.
"""

from qubix_protocol.trials import TrialShape

SHAPE = TrialShape(pages=3, rows=2, columns=24, depth=16)
SEED, KEY, DEVICE = b"s" * 32, b"k" * 32, "GPU-1"

if __name__ == "__main__":
    from qubix_kernels.trial.cuda import CudaMemory

    memory = CudaMemory(SHAPE, DEVICE)
    memory.fill(SEED)
    print(memory.digests(KEY).hex())
