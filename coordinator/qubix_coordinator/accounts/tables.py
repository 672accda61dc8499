# SPDX-License-Identifier: Apache-2.0
"""Models of schema.sql and schema_2_wallets.sql."""

from tortoise import fields
from tortoise.models import Model


class AccountRow(Model):
    id = fields.UUIDField(primary_key=True)
    kind = fields.TextField()
    name = fields.TextField()
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "account"


class NodeRow(Model):
    """`incarnation` counts handshakes: it is the first half of the node's sequence numbers (trust.md P1)."""

    peer_id = fields.CharField(max_length=128, primary_key=True)
    public_key = fields.BinaryField()
    account_id = fields.UUIDField()
    incarnation = fields.BigIntField(default=0)
    created_at = fields.DatetimeField(auto_now_add=True)
    last_seen_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "node"


class WalletRow(Model):
    """Rows are never deleted: `ended_at` tells that the wallet was unbound."""

    id = fields.UUIDField(primary_key=True)
    account_id = fields.UUIDField()
    public_key = fields.BinaryField()
    proof = fields.TextField()
    since = fields.DatetimeField()
    approves_keys = fields.BooleanField(default=False)
    ended_at = fields.DatetimeField(null=True)

    class Meta:
        table = "wallet"


class PaymentProofRow(Model):
    """A payment that is waited for, or that proved an address."""

    id = fields.UUIDField(primary_key=True)
    account_id = fields.UUIDField()
    public_key = fields.BinaryField()
    amount_qu = fields.BigIntField()
    issued_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()
    proved_at = fields.DatetimeField(null=True)

    class Meta:
        table = "payment_proof"
