# SPDX-License-Identifier: Apache-2.0
"""The keys of control sessions, for a test that reads along on the wire, as browsers keep TLS's (SSLKEYLOGFILE)."""

import os
from collections.abc import Callable
from pathlib import Path

from qubix_protocol.channel import Channel


def writer(path: Path | None) -> Callable[[bytes, Channel], None]:
    """What notes a session's keys, before anything is sent with them: a line of the node's exchange key and the keys
    from node and from coordinator, in hex. Nothing without a path."""

    def note(exchange: bytes, channel: Channel) -> None:
        if path is None:
            return
        line = " ".join(one.hex() for one in (exchange, channel.keys.from_node, channel.keys.from_coordinator))
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)

    return note
