# SPDX-License-Identifier: Apache-2.0
"""What a watcher knows of its market: told by the coordinator while it answers, remembered for when it does not."""

import logging
from pathlib import Path
from typing import Final

import httpx
import msgspec
import trio

from qubix_mesh import pins
from qubix_mesh.errors import NotKnown
from qubix_protocol.api import NetworkView
from qubix_protocol.units import Network

log = logging.getLogger("qubix_mesh")
ASK_S: Final = 5.0
_ANSWER_BYTES_MAX: Final = 256 * 1024


class Known(pins.Pin, frozen=True, kw_only=True):
    regions: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    """Gateways and relays."""


async def find(url: str, network: Network, path: Path, *, key: str = "") -> tuple[Known, bool]:
    """What is known now, and whether the coordinator said it just now. `key` is believed before anybody. Raises
    `NotKnown`, `BadPin`."""
    before = await trio.to_thread.run_sync(pins.load, path, Known, network)
    view = await _asked(url)
    if view is None:
        if before is not None and key in ("", before.coordinator_key):
            return before, False
        if key:
            return Known(network=network, coordinator_key=key, regions=("local",)), False
        raise NotKnown(
            f"{url} does not answer, and nothing is remembered of a market on {network}. Start it, or set"
            " QUBIX_COORDINATOR_KEY and QUBIX_BOOTSTRAP."
        )
    if view.network != network:
        raise NotKnown(f"{url} serves the network {view.network!r}, not {network!r}: set QUBIX_NETWORK")
    pinned = key or (before.coordinator_key if before is not None else "")
    if pinned and view.coordinator_key != pinned:
        raise NotKnown(
            f"the coordinator's key is {view.coordinator_key[:16]}…, trusted is {pinned[:16]}…. If the operator says"
            f" that it was replaced, delete {path}; otherwise check QUBIX_COORDINATOR_URL."
        )
    known = Known(
        network=network,
        coordinator_key=view.coordinator_key,
        regions=view.regions,
        addresses=(*view.gateways, *view.relays),
    )
    await trio.to_thread.run_sync(pins.save, path, known)
    return known, True


async def _asked(url: str) -> NetworkView | None:
    try:
        with trio.fail_after(ASK_S):
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get(f"{url.rstrip('/')}/api/v1/network")
        if not answer.is_success or len(answer.content) > _ANSWER_BYTES_MAX:
            return None
        return msgspec.json.decode(answer.content, type=NetworkView)
    except (httpx.HTTPError, trio.TooSlowError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.debug("mesh.coordinator_away", extra={"url": url, "reason": str(error)})
        return None
