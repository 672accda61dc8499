# SPDX-License-Identifier: Apache-2.0
"""Every kernel's CUDA code compiled to machine code (SASS), without a GPU: `python -m qubix_kernels.sass 9.0`.

The way is the one that a launch takes: Numba makes LTO-IR, and nvJitLink, which holds the assembler, makes machine
code of it and says what it used. Needs the compiler parts (extra `cuda13` or `cuda12`), no driver. One process serves
one compute capability.
"""

import importlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from qubix_kernels import get, names

ARCHITECTURES: Final = ("7.5", "8.0", "9.0", "12.0")
"""Turing, A100, H100 and RTX 50: the oldest and the newest there are, and the two that datacentres rent out."""
_COMPILE_S: Final = 300.0
_USED: Final = re.compile(r"Used (\d+) registers")
_STACK: Final = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_SHARED: Final = re.compile(r"(\d+) bytes smem")


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """What the assembler says of one function. `local_bytes` is the stack frame a thread has in device memory, into
    which registers spill; `registers` are a thread's, `shared_bytes` a block's."""

    kernel: str
    function: str
    architecture: str
    registers: int
    registers_max: int
    local_bytes: int
    spilled_bytes: int
    shared_bytes: int
    threads: int
    blocks_per_sm: int
    code_bytes: int
    compile_ms: float


def modules() -> list[str]:
    """Of every kernel that has a CUDA back end of our own: for `onnx` the device code is onnxruntime's."""
    return [f"qubix_kernels.{name}.cuda" for name in names() if name != "onnx" and "cuda" in get(name).spec.backends]


def report(architecture: str, *more: str) -> list[Compiled]:
    """All of them for "9.0" or another, and of the modules in `more`, in a process of its own. Raises RuntimeError
    with what it said when anything does not compile."""
    command = [sys.executable, "-m", "qubix_kernels.sass", architecture, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMPILE_S)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-2000:])
    return msgspec.json.decode(done.stdout, type=list[Compiled])


def compiled(architecture: str, module: str) -> Iterator[Compiled]:
    from qubix_kernels import cuda

    major, minor = (int(part) for part in architecture.split("."))
    for kernel in importlib.import_module(module).DEVICE_KERNELS:
        began = time.perf_counter()
        code, log = _link(cuda.compile_to_ltoir(kernel, (major, minor)), f"sm_{major}{minor}")
        stacks = [[int(size) for size in found] for found in _STACK.findall(log)]
        threads, blocks = kernel.launch_bounds
        yield Compiled(
            kernel=module,
            function=kernel.name,
            architecture=f"sm_{major}{minor}",
            registers=max(int(used) for used in _USED.findall(log)),
            registers_max=kernel.registers_max,
            local_bytes=max(frame for frame, _, _ in stacks),
            spilled_bytes=sum(stores + loads for _, stores, loads in stacks),
            shared_bytes=max((int(size) for size in _SHARED.findall(log)), default=0),
            threads=threads,
            blocks_per_sm=blocks,
            code_bytes=len(code),
            compile_ms=(time.perf_counter() - began) * 1000,
        )


def _link(parts: Sequence[Any], architecture: str) -> tuple[bytes, str]:
    """The machine code, and the assembler's own account of it."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    objects = [part if isinstance(part, ObjectCode) else ObjectCode.from_ltoir(part) for part in parts]
    options = LinkerOptions(arch=architecture, link_time_optimization=True, ptxas_options=["-v"])
    linker = Linker(*objects, options=options)
    code = linker.link("cubin").code
    return code, linker.get_info_log()


def main(arguments: Sequence[str]) -> None:
    architecture, *more = arguments
    found = [one for module in (more or modules()) for one in compiled(architecture, module)]
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
