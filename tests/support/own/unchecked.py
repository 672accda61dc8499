# SPDX-License-Identifier: Apache-2.0
"""Registers `orbit`, a kernel without a verifier, in this process: as a consumer's own kernels will be. Workers run it
as `unchecked:serve`, with this folder on their path and in their box."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import qubix_kernels
from qubix_kernels import tasks

FOLDER: Final = Path(__file__).resolve().parent
_KERNELS: Final = str(FOLDER / "kernels")


def install() -> None:
    if _KERNELS not in qubix_kernels.__path__:
        qubix_kernels.__path__.append(_KERNELS)
    _look_again()


@contextlib.contextmanager
def registered() -> Iterator[None]:
    install()
    try:
        yield
    finally:
        qubix_kernels.__path__.remove(_KERNELS)
        _look_again()


def _look_again() -> None:
    qubix_kernels.names.cache_clear()
    qubix_kernels.get.cache_clear()


def serve_wrong(sock: socket.socket) -> None:
    """Of a provider who makes the numbers up a little."""
    install()
    kernel = qubix_kernels.get("orbit")
    honest = kernel.run
    kernel.run = lambda *given: {"y": honest(*given)["y"] + 0.01}  # type: ignore[method-assign]
    tasks.serve(sock)


def serve(sock: socket.socket) -> None:
    install()
    tasks.serve(sock)
