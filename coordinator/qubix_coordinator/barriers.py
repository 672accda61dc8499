# SPDX-License-Identifier: Apache-2.0
"""Asks the test that started this process whether to wait at a barrier (`qubix_protocol.barriers`)."""

import asyncio
from pathlib import Path

from qubix_protocol.barriers import Barrier


async def hold(path: Path, barrier: Barrier) -> None:
    """Until the test answers, or is gone."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return
    try:
        writer.write(f"{barrier}\n".encode())
        await reader.read(1)
    except OSError:
        return
    finally:
        writer.close()
