# SPDX-License-Identifier: Apache-2.0
"""A trial's CUDA back end on a card, in a process of its own: `python -m tests.card.trial_on_card`.

Prints the digests of a trial of several slabs and blocks of odd sizes, in hex.
"""

from qubix_protocol.trials import TrialShape

SHAPE = TrialShape(pages=301, rows=72, columns=1024, depth=1024)
SEED, KEY, DEVICE = b"s" * 32, b"k" * 32, "GPU-1"

if __name__ == "__main__":
    from qubix_kernels.trial import cuda
    from qubix_kernels.trial.cuda import CudaMemory

    cuda._BLOCK_BYTES = 100 * 4 * SHAPE.rows * SHAPE.columns  # type: ignore[misc]  several blocks, of which one is short
    memory = CudaMemory(SHAPE, DEVICE)
    memory.fill(SEED)
    print(memory.digests(KEY).hex())
