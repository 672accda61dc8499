# SPDX-License-Identifier: Apache-2.0
"""Brings a pairing code to the coordinator, and says on this machine which fingerprint a person is to compare.

The node works meanwhile, and goes on whatever comes of it: until it is confirmed, what it earns is its own account's.
"""

import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from qubix_mesh.rules import backoff_s
from qubix_node.clock import wall_ms
from qubix_node.enrol import Enroller
from qubix_node.errors import EnrolmentRefused, Unreachable
from qubix_protocol.keys import SigningKey
from qubix_protocol.pairing import NodePairingView, Pair, PairingState, fingerprint

log = logging.getLogger("qubix_node")
LOOK_S: Final = 3.0
Ask = Callable[[], Awaitable[NodePairingView]]
_OPEN: Final = (PairingState.WAITING, PairingState.SEEN)


async def bring(enroller: Enroller, code: str) -> NodePairingView:
    """Raises `Unreachable`; `EnrolmentRefused` when the code is not taken; `Fatal` for another coordinator."""
    return await enroller.say("/api/v1/nodes/pair", Pair(code=code, clock_ms=wall_ms()), NodePairingView)


async def follow(ask: Ask, key: SigningKey, *, look_s: float = LOOK_S) -> PairingState | None:
    """Until a person has decided, or the pairing has ended; None when the code was not taken."""
    failures, told = 0, ""
    chance = random.Random(secrets.randbits(32))  # noqa: S311  spreads retries, guards nothing
    while True:
        try:
            view = await ask()
        except Unreachable as error:
            log.info("pair.waiting", extra={"reason": str(error)})
            await trio.sleep(backoff_s(failures, chance.random()))
            failures += 1
            continue
        except EnrolmentRefused as error:
            log.warning("pair.refused", extra={"reason": str(error)})
            return None
        failures = 0
        if view.state != told:
            told = view.state
            log.info("pair.state", extra={"state": view.state.value, "fingerprint": fingerprint(key.public)})
        if view.state not in _OPEN:
            return view.state
        await trio.sleep(look_s)
