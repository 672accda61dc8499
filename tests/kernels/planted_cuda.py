# SPDX-License-Identifier: Apache-2.0
"""Device code for the tests of the tools themselves: one function that is well, one that spills, and a run of each."""

import sys

import numpy as np

from qubix_kernels.cuda import DeviceKernel, blocks_for, cuda, device, empty, fetch, float32, send


def axpy(a, x, y):  # type: ignore[no-untyped-def]
    i = cuda.grid(1)
    if i < x.size:
        y[i] = a * x[i] + 1


def spills(x, y):  # type: ignore[no-untyped-def]
    """An array that is indexed by data cannot live in registers."""
    kept = cuda.local.array(32, float32)
    for i in range(32):
        kept[i] = x[i]
    for i in range(x.size):
        kept[i * 7 % 32] += kept[int(x[i]) % 32]
    for i in range(32):
        y[i] = kept[i]


AXPY = DeviceKernel(
    name="axpy", function=axpy, signature="void(float32, float32[::1], float32[::1])", block=(32,), registers_max=32
)
SPILLS = DeviceKernel(
    name="spills", function=spills, signature="void(float32[::1], float32[::1])", block=(32,), registers_max=64
)
DEVICE_KERNELS = (AXPY, SPILLS)


def main() -> None:
    """Prints 3 x + 1 for x = 0, 1, …, 69, computed on the device."""
    x = np.arange(70, dtype=np.float32)
    with device():
        y = empty(x.shape, np.float32)
        AXPY.launch((blocks_for(70, 32),), 3.0, send(x[::-1]), y)
        sys.stdout.write(" ".join(f"{value:g}" for value in fetch(y)[::-1]))


if __name__ == "__main__":
    main()
