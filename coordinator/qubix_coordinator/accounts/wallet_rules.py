# SPDX-License-Identifier: Apache-2.0
"""What a wallet's proof opens, how long things stay open, and who a key may speak for. Pure."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from qubix_protocol.units import QU_MAX

CHALLENGE_LIFE: Final = timedelta(minutes=10)
CHALLENGE_KEPT: Final = timedelta(hours=1)
"""How long an old challenge is remembered, so that its second use is told from a text that was never issued."""
OPEN_FOR_ONE_MAX: Final = 5
"""Challenges of one identity that one address may have open; the oldest gives way, so nobody locks an identity out."""
OPEN_FROM_ONE_MAX: Final = 100
"""Challenges that one address may have open, of whatever identities."""
CHALLENGES_MAX: Final = 50_000
"""Rows of challenges altogether, used and old ones too."""

SESSIONS_MAX: Final = 20
"""Live sessions of one account; at a sign-in beyond it, the one that was used longest ago ends."""
ENDED_KEPT_MAX: Final = 100
"""Ended sessions of an account that its list still shows."""
WALLETS_MAX: Final = 20
"""Wallets of one account that are bound at a time."""

PROOF_LIFE: Final = timedelta(days=1)
PROOFS_OPEN_MAX: Final = 5
"""Payments that one account may be waited for from different addresses."""
PROOF_SPREAD_QU: Final = 10_000


class Proof(StrEnum):
    """How it was shown whose a wallet is."""

    SIGNATURE = "signature"
    PAYMENT = "payment"


@dataclass(frozen=True, slots=True)
class Powers:
    sign_in: bool
    be_paid: bool


POWERS: Final = {
    Proof.SIGNATURE: Powers(sign_in=True, be_paid=True),
    # Whoever can make an address pay need not hold its key: an exchange pays for thousands (trust.md A3).
    Proof.PAYMENT: Powers(sign_in=False, be_paid=True),
}


class Binding(StrEnum):
    """What a challenge that was signed for binding does."""

    SAME = "same"
    BIND = "bind"
    UPGRADE = "upgrade"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class BoundWallet:
    """A wallet that is bound to an account."""

    wallet_id: UUID
    account_id: UUID
    public_key: bytes
    proof: Proof
    since: datetime
    approves_keys: bool = False
    """See `order_key_rules`."""

    @property
    def may(self) -> Powers:
        return POWERS[self.proof]


def at_bind(speaks_for: UUID | None, account_id: UUID, paid_proof: bool) -> Binding:
    """`paid_proof`: a payment proved the wallet to this account before."""
    if speaks_for is not None:
        return Binding.SAME if speaks_for == account_id else Binding.REFUSE
    return Binding.UPGRADE if paid_proof else Binding.BIND


def asker(address: str) -> bytes:
    """Who asks, as rows remember it: an address's digest, not the address."""
    return hashlib.sha256(address.encode()).digest()[:16]


def proof_amount(least_qu: int, draw: int) -> int:
    """An amount that nobody pays by chance: `draw` is random in [0, PROOF_SPREAD_QU)."""
    if not 0 <= draw < PROOF_SPREAD_QU or not 0 <= least_qu <= QU_MAX - PROOF_SPREAD_QU:
        raise ValueError("the draw or the least amount is out of range")
    return least_qu + 1 + draw
