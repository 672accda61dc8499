# SPDX-License-Identifier: Apache-2.0
"""The one door to Numba's CUDA target: what a kernel's `cuda.py` takes from it, and how it says what it compiles.

Importing this imports Numba (half a second) and touches no GPU; the first launch makes a context on the first device
that `CUDA_VISIBLE_DEVICES` shows. Only workers get here: a zygote that held a context could not fork, so `spec.py`
imports a `cuda.py` inside `run` alone. Nothing compiled is kept on disk: who can write such a cache can run code here.

With `NUMBA_ENABLE_CUDASIM=1` set before the import, Numba's simulator runs the same Python functions without a GPU.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from numba import cuda
from numba.cuda.core import config
from numba.cuda.core.errors import NumbaError
from numba.cuda.cudadrv.driver import CudaAPIError, LinkerError
from numba.cuda.cudadrv.error import CudaSupportError
from numba.cuda.types import float16, float32, float64, int32, int64, uint32, uint64

from qubix_kernels.landing import Landing
from qubix_protocol.arrays import Array

__all__ = [
    "ALIGNED",
    "SIMULATED",
    "DeviceFailed",
    "DeviceKernel",
    "NoDevice",
    "blocks_for",
    "cuda",
    "device",
    "empty",
    "fetch",
    "float16",
    "float32",
    "float64",
    "int32",
    "int64",
    "multiprocessors",
    "send",
    "uint32",
    "uint64",
    "warm_up",
]

SIMULATED: Final = bool(config.ENABLE_CUDASIM)
ALIGNED: Final = None if SIMULATED else 16
"""For `shared.array`: so that four numbers are read at a time. The simulator knows no alignment."""
_OUT_OF_MEMORY: Final = "CUDA_ERROR_OUT_OF_MEMORY"
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # small jobs fill no GPU, and that is fine


class NoDevice(LookupError):
    """There is no CUDA device here, or no driver that shows it; the message says which."""


class DeviceFailed(RuntimeError):
    """The driver refused or broke off; the message is the driver's own word. The worker is of no more use."""


@dataclass(frozen=True, kw_only=True)
class DeviceKernel:
    """One function of the device, for one signature.

    `block` is the shape of a block of threads; `blocks_per_sm` of them must fit into a multiprocessor at once, which
    limits the registers a thread may have. Every one in a module's `DEVICE_KERNELS` is compiled to machine code by the
    tests, which refuse local memory (spilled registers) and more than `registers_max`.
    """

    name: str
    function: Callable[..., None]
    signature: str
    block: tuple[int, ...]
    registers_max: int
    blocks_per_sm: int = 1
    fastmath: bool = False

    @property
    def launch_bounds(self) -> tuple[int, int]:
        return math.prod(self.block), self.blocks_per_sm

    @functools.cached_property
    def _compiled(self) -> Any:
        options = {} if SIMULATED else {"launch_bounds": self.launch_bounds}
        return cuda.jit(self.signature, fastmath=self.fastmath, **options)(self.function)

    def compile(self) -> None:
        """For the device that is here, now rather than at the first launch; makes the context, too."""
        assert self._compiled is not None

    def launch(self, grid: tuple[int, ...], *arguments: Any) -> None:
        """Starts it on so many blocks, compiling it when it is the first time; does not wait for the end."""
        self._compiled[grid, self.block](*arguments)


@contextmanager
def device() -> Iterator[None]:
    """Work on the device happens inside: what the driver says comes out as `MemoryError`, `NoDevice` or
    `DeviceFailed`."""
    try:
        yield
    except CudaSupportError as error:
        raise NoDevice(f"no CUDA device can be used: {_line(error)}") from error
    except CudaAPIError as error:
        if _OUT_OF_MEMORY in str(error):
            raise MemoryError(f"the device has no room for this: {_line(error)}") from error
        raise DeviceFailed(f"the device failed: {_line(error)}") from error
    except PermissionError as error:
        raise DeviceFailed(
            "parts of CUDA are not beside QUBIX: install its extra cuda13 or cuda12. Elsewhere they are looked for by "
            "a child process, which a worker may not start"
        ) from error
    except (LinkerError, NumbaError) as error:
        raise DeviceFailed(f"this kernel cannot be compiled for the device: {_line(error)}") from error


def warm_up(kernels: Iterable[DeviceKernel]) -> None:
    """Compiles them, before time is counted. Raises what `device` raises."""
    with device():
        for kernel in kernels:
            kernel.compile()


def send(array: Array) -> Any:
    """A copy on the device, C-contiguous."""
    return cuda.to_device(array if array.flags.c_contiguous and array.flags.aligned else array.copy())


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """Room on the device, not cleared: the kernel must write every element that is fetched."""
    return cuda.device_array(shape, dtype)


def fetch(array: Any) -> Array:
    """A copy on the host; waits for the kernels before it, whose errors are raised here."""
    host: Array = _landing.array(array.shape, array.dtype)
    array.copy_to_host(host)
    return host


_landing: Final = Landing()


def blocks_for(size: int, per_block: int) -> int:
    return -(-size // per_block)


def multiprocessors() -> int:
    """Of the device: with fewer blocks than these, part of it idles. The simulator counts as two."""
    return 2 if SIMULATED else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


def compile_to_ltoir(kernel: DeviceKernel, compute_capability: tuple[int, int]) -> list[Any]:
    """Numba's half of the way to machine code, the same as at a launch, for any device and without one. A process
    that calls this serves one compute capability and launches nothing: Numba is told that this is its device."""
    from types import SimpleNamespace

    from numba.cuda import compiler, dispatcher, types
    from numba.cuda.core import sigutils

    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=compute_capability)
    arguments, _ = sigutils.normalize_signature(kernel.signature)
    parts, _ = compiler.compile_all(
        kernel.function,
        types.void(*arguments),
        device=False,
        abi="numba",
        cc=compute_capability,
        output="ltoir",
        fastmath=kernel.fastmath,
        launch_bounds=kernel.launch_bounds,
    )
    return list(parts)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
