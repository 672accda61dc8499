# SPDX-License-Identifier: Apache-2.0
"""Asks the test that started this process whether to wait at a barrier (`qubix_protocol.barriers`)."""

from pathlib import Path

import trio

from qubix_protocol.barriers import Barrier


async def hold(path: Path, barrier: Barrier) -> None:
    """Until the test answers, or is gone."""
    try:
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(f"{barrier}\n".encode())
            await stream.receive_some(1)
    except (OSError, trio.BrokenResourceError):
        return
