# SPDX-License-Identifier: Apache-2.0
"""Ports that are nobody's for a while and a server's later."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections until somebody listens there by its number: it is bound meanwhile,
    so that no other process is given it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
