# SPDX-License-Identifier: Apache-2.0
"""Runs a kernel's CUDA back end in a child process: in Numba's simulator, which must be chosen before Numba is
imported, or on a real card (`on_cuda` in card.py chooses).

The simulator runs 20 to 1,500 device threads a second and checks index bounds: keep sizes at 32² and below. It knows
no shuffles, no ballot and no `alignment` of shared arrays, gives one shared array to each source line, and syncs grids
wrongly.

    with Simulator() as simulator:
        outputs = simulator.run("matmul", inputs, params)
"""

import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from qubix_kernels.kernel import BadInput, metas_of
from qubix_protocol.arrays import Array, pack_arrays, unpack_arrays

ROOT = Path(__file__).resolve().parents[2]
_LENGTH = struct.Struct(">I")
_ERRORS = {error.__name__: error for error in (BadInput, LookupError, MemoryError)}


class Request(msgspec.Struct):
    kernel: str
    params: dict[str, Any]
    inputs: bytes


class Reply(msgspec.Struct):
    """`error` is the kind of what was raised, else empty."""

    outputs: bytes = b""
    error: str = ""
    detail: str = ""


class Simulator:
    """A child that has Numba loaded. A context manager: the child ends with it."""

    is_card: ClassVar[bool] = False

    def __init__(self) -> None:
        environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "0" if self.is_card else "1"}
        warnings = ["-W", "error", "-W", "ignore::RuntimeWarning"]  # numbers of a device overflow without a word
        command = [sys.executable, *warnings, "-m", "tests.kernels.simulator"]
        self._child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> "Simulator":
        return self

    def __exit__(self, *error: object) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait(60)

    def run(self, kernel: str, inputs: Mapping[str, Array], params: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs. Raises what the back end raised: `BadInput`, `LookupError`, else RuntimeError that names it."""
        request = Request(kernel, dict(params), pack_arrays(inputs))
        write(self._child.stdin, msgspec.msgpack.encode(request))
        reply = msgspec.msgpack.decode(read(self._child.stdout), type=Reply)
        if reply.error:
            raise _ERRORS.get(reply.error, RuntimeError)(reply.detail)
        return unpack_arrays(reply.outputs)


class Card(Simulator):
    """The same child on the first card that the driver shows: whole grids, real machine code, the driver's errors."""

    is_card = True


def write(stream: Any, data: bytes) -> None:
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def read(stream: Any) -> bytes:
    """One frame; b"" at the end of the stream."""
    head = stream.read(_LENGTH.size)
    return stream.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""


def answer(request: Request) -> Reply:
    from qubix_kernels import get

    try:
        kernel, inputs = get(request.kernel), unpack_arrays(request.inputs)
        kernel.warm_up("cuda", metas_of(inputs), request.params)
        outputs = kernel.run("cuda", inputs, request.params)
    except Exception as error:
        kind = next((name for name, known in _ERRORS.items() if isinstance(error, known)), "")
        return Reply(error=kind or "RuntimeError", detail=f"{type(error).__name__}: {error}")
    return Reply(outputs=pack_arrays(outputs))


def main() -> None:
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # what a kernel prints must not get between the frames
        while data := read(sys.stdin.buffer):
            write(out, msgspec.msgpack.encode(answer(msgspec.msgpack.decode(data, type=Request))))


if __name__ == "__main__":
    main()
