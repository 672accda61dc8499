# SPDX-License-Identifier: Apache-2.0
"""A pairing's states, what moves it on, and when it ends by itself. Pure."""

from enum import StrEnum
from typing import Final
from uuid import UUID

from qubix_protocol.pairing import CODE_LIFE_S, PairingState

CODE_LIFE_MS: Final = CODE_LIFE_S * 1000
CONFIRM_LIFE_MS: Final = 3_600_000
"""A person may be away from the page; the node goes on under its own account meanwhile."""
OPEN_MAX: Final = 5
"""Codes of one account that wait at a time; the oldest gives way."""
KEPT_MS: Final = 30 * 86_400_000
"""Of what has ended."""
FOLLOWED_MS: Final = 86_400_000
"""For so long after the node was seen its devices' first steps are told on the pairing's topic."""
LISTED_MAX: Final = 50


class Event(StrEnum):
    BROUGHT = "brought"
    """A node brought the code."""
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    DUE = "due"


OPEN: Final = frozenset({PairingState.WAITING, PairingState.SEEN})
_NEXT: Final = {
    (PairingState.WAITING, Event.BROUGHT): PairingState.SEEN,
    (PairingState.WAITING, Event.REFUSED): PairingState.REFUSED,
    (PairingState.WAITING, Event.DUE): PairingState.EXPIRED,
    (PairingState.SEEN, Event.CONFIRMED): PairingState.CONFIRMED,
    (PairingState.SEEN, Event.REFUSED): PairingState.REFUSED,
    (PairingState.SEEN, Event.DUE): PairingState.EXPIRED,
}


def decide(state: PairingState, event: Event) -> PairingState | None:
    """None: the event changes nothing."""
    return _NEXT.get((state, event))


def due_ms(state: PairingState, now_ms: int) -> int | None:
    """When a pairing that has just come into `state` ends by itself."""
    lives = {PairingState.WAITING: CODE_LIFE_MS, PairingState.SEEN: CONFIRM_LIFE_MS}
    return now_ms + lives[state] if state in lives else None


def may_join(of_node: UUID, of_key: UUID, account_id: UUID) -> bool:
    """A node leaves the account of its own key once, for a person's; there it stays (docs/adr/0034)."""
    return of_node in (of_key, account_id)
