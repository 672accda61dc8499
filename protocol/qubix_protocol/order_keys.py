# SPDX-License-Identifier: Apache-2.0
"""Bodies of the API's routes about the keys that sign an account's orders (docs/adr/0038).

An account that has ever had a key takes another one only with a signature: of a key that is live, or of a wallet that
approves keys. Signed statements are envelopes (`envelope.seal`) in hex, addressed to the coordinator.
"""

from typing import Annotated, Final

from msgspec import Meta

from qubix_protocol.api import Body, HexKey, View
from qubix_protocol.states import OrderKeyKind, OrderKeyWay
from qubix_protocol.wallets import SignedBody

_KEY_BYTES: Final = 32
_STATEMENT_BYTES_MAX: Final = 2_000
StatementHex = Annotated[str, Meta(pattern="^([0-9a-f]{2})*$", max_length=2 * _STATEMENT_BYTES_MAX)]


def read_key(text: str) -> bytes | None:
    """A public key as people write it, in hex. None: it is none."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return None
    return found if len(found) == _KEY_BYTES else None


class OrderKeyBody(Body, frozen=True, kw_only=True):
    """`POST /order-keys`. `request` is an `OrderKeyRequest`, signed by the new key. While the account has never had a
    key, being signed in is enough; afterwards one of the two: `approval`, an `OrderKeyApproval` of a live key, or
    `wallet`, a challenge for `add-order-key` that names the new key."""

    request: StatementHex
    approval: StatementHex = ""
    wallet: SignedBody | None = None


class OrderKeyRevocationBody(Body, frozen=True, kw_only=True):
    """`POST /order-keys/{public_key}/revoke`. One of the two: `statement`, an `OrderKeyRevocation` of a live key, or
    `wallet`, a challenge for `revoke-order-key` that names the key. The last live key is revoked by a wallet alone."""

    statement: StatementHex = ""
    wallet: SignedBody | None = None


class WalletApprovalBody(Body, frozen=True, kw_only=True):
    """`POST /wallets/{identity}/approve`. `statement` is a `WalletApproval` of a live key."""

    statement: StatementHex


class OrderKeyView(View, frozen=True, kw_only=True):
    """A key that signs the account's orders, or did. `name` and `kind` are what its holder says."""

    public_key: HexKey
    name: str
    kind: OrderKeyKind
    created_ms: int
    added_by: OrderKeyWay
    added_by_key: HexKey | None = None
    added_by_identity: str = ""
    """Of the wallet."""
    last_used_ms: int | None = None
    """To the minute."""
    revoked_ms: int | None = None
    revoked_by: OrderKeyWay | None = None
    revoked_by_key: HexKey | None = None
    revoked_by_identity: str = ""


class OrderKeysView(View, frozen=True, kw_only=True):
    """`GET /order-keys`: live ones first, each oldest first. `signed`: orders must be signed, as from the first key on,
    also when no key is live any more."""

    signed: bool
    wallet_approves: bool = False
    """A wallet of the account adds keys. Without one, who loses every key never spends from the account again."""
    keys: tuple[OrderKeyView, ...]
