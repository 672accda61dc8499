# SPDX-License-Identifier: Apache-2.0
"""What the tests of workers share: inputs in files, tasks on them, and all that a worker says."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qubix_kernels.tasks import Event, Frame, Part, RunTask, VerifyTask, decode_event, encode_frame, frame_length
from qubix_protocol.arrays import pack_arrays, to_npy

DEADLINE_S = 60.0
Matrix = NDArray[Any]


class Product:
    """A matrix product whose inputs lie in a folder, and whose right answer is known."""

    def __init__(self, folder: Path, rows: int, inner: int = 24, columns: int = 12) -> None:
        rng = np.random.default_rng(rows)
        self.folder = self.out = folder
        self.a = rng.standard_normal((rows, inner), dtype=np.float32)
        self.b = rng.standard_normal((inner, columns), dtype=np.float32)
        self.inputs = {name: str(folder / f"{name}.npy") for name in ("a", "b")}
        for name, path in self.inputs.items():
            Path(path).write_bytes(to_npy(getattr(self, name)))

    @property
    def answer(self) -> Matrix:
        return self.a @ self.b

    def run(self, *ranges: tuple[int, int], chunk_units: int = 8, target_s: float = 1e-9, **more: Any) -> RunTask:
        """The tiny target keeps chunks at the size that is asked for."""
        words: dict[str, Any] = {"kernel": "matmul", "backend": "cpu", "params": {}, "inputs": self.inputs} | more
        return RunTask(
            ranges=ranges or ((0, len(self.a)),),
            chunk_units=chunk_units,
            target_s=target_s,
            out_dir=str(self.out),
            **words,
        )

    def verify(self, *parts: Part, **more: Any) -> VerifyTask:
        words: dict[str, Any] = {"kernel": "matmul", "params": {}, "inputs": self.inputs, "seed": bytes(32)} | more
        return VerifyTask(parts=parts, **words)

    def part(self, start: int, stop: int, rows: Matrix | None = None) -> Part:
        path = self.folder / f"part-{start}-{stop}.bin"
        path.write_bytes(pack_arrays({"c": self.answer[start:stop] if rows is None else rows}))
        return Part(start=start, stop=stop, path=str(path))


def say(sock: socket.socket, frame: Frame) -> None:
    sock.settimeout(DEADLINE_S)
    sock.sendall(encode_frame(frame))


def hear_all(sock: socket.socket) -> list[Event]:
    """Every event until the worker closes."""
    events: list[Event] = []
    while body := hear_bytes(sock):
        events.append(decode_event(body))
    return events


def hear_bytes(sock: socket.socket) -> bytes:
    """One frame; nothing when the worker has closed."""
    head = _exactly(sock, 4)
    return _exactly(sock, frame_length(head)) if head else b""


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data
