# SPDX-License-Identifier: Apache-2.0
"""`wipe.Memory` of the one CUDA device that this worker sees. Imported inside a worker alone.

Shared memory: far more blocks than fit at once, each of which writes zeros over the most that a block may have without
asking, so that every multiprocessor is filled several times over.
"""

from typing import Any, Final

from qubix_kernels import cuda as door
from qubix_kernels.box import wipe
from qubix_kernels.cuda import SIMULATED, DeviceKernel, cuda, float32

_SHARED_WORDS: Final = 12 * 1024
"""48 KiB of float32."""
_BLOCKS_PER_SM: Final = 64
_THREADS: Final = 256


def zero_shared(seen: Any) -> None:
    """`seen` gets a word of each block, so that nothing here is left out as useless."""
    words = cuda.shared.array(_SHARED_WORDS, float32)
    for i in range(cuda.threadIdx.x, _SHARED_WORDS, _THREADS):
        words[i] = float32(0)
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        seen[cuda.blockIdx.x] = words[cuda.blockIdx.x % _SHARED_WORDS]


ZERO_SHARED: Final = DeviceKernel(
    name="zero_shared", function=zero_shared, signature="void(float32[::1])", block=(_THREADS,), registers_max=40
)
DEVICE_KERNELS: Final = (ZERO_SHARED,)


def memory_of_this_device() -> wipe.Memory[Any]:
    """Raises `NoDevice` or `DeviceFailed`."""
    return SimulatedMemory() if SIMULATED else CudaMemory()


class CudaMemory:
    def __init__(self) -> None:
        with door.device():
            self._context = cuda.current_context()
            self._multiprocessors = int(cuda.get_current_device().MULTIPROCESSOR_COUNT)

    def free_bytes(self) -> int:
        with door.device():
            return int(self._context.get_memory_info().free)

    def take(self, size: int) -> Any:
        with door.device():
            return self._context.memalloc(size)

    def clear(self, block: Any, size: int) -> None:
        with door.device():
            cuda.cudadrv.driver.device_memset(block, 0, size)
            self._context.synchronize()

    def clear_on_chip(self) -> None:
        blocks = self._multiprocessors * _BLOCKS_PER_SM
        with door.device():
            seen = door.empty((blocks,), "float32")
            ZERO_SHARED.launch((blocks,), seen)
            self._context.synchronize()


class SimulatedMemory:
    """The simulator's device has none of its own: its arrays are the process's, and go with it."""

    def free_bytes(self) -> int:
        return 0

    def take(self, size: int) -> Any:
        raise MemoryError

    def clear(self, block: Any, size: int) -> None:
        return

    def clear_on_chip(self) -> None:
        return
