# SPDX-License-Identifier: Apache-2.0
"""The withdrawals' tables as ORM models; schema.sql is the truth about their constraints."""

from tortoise import fields
from tortoise.models import Model


class PayoutAddress(Model):
    id = fields.UUIDField(primary_key=True)
    account_id = fields.UUIDField()
    public_key = fields.BinaryField()
    label = fields.TextField()
    added_ms = fields.BigIntField()
    usable_ms = fields.BigIntField()
    removed_ms = fields.BigIntField(null=True)

    class Meta:
        table = "payout_address"


class HotWallet(Model):
    public_key = fields.BinaryField(primary_key=True)
    balance_qu = fields.BigIntField()
    tick = fields.BigIntField()
    epoch = fields.BigIntField()
    room = fields.BooleanField()
    seen_ms = fields.BigIntField()
    problem = fields.TextField()
    problem_ms = fields.BigIntField(null=True)

    class Meta:
        table = "hot_wallet"


class Withdrawal(Model):
    """`no` counts them in the order in which they came."""

    id = fields.UUIDField(primary_key=True)
    no = fields.BigIntField()
    account_id = fields.UUIDField()
    idempotency_key = fields.TextField()
    address_id = fields.UUIDField()
    destination = fields.BinaryField()
    amount_qu = fields.BigIntField()
    automatic = fields.BooleanField(default=False)
    state = fields.TextField()
    reason = fields.TextField()
    detail = fields.TextField(default="")
    revision = fields.BigIntField(default=0)
    tries = fields.IntField(default=0)
    approved_by = fields.UUIDField(null=True)
    approved_ms = fields.BigIntField(null=True)
    created_ms = fields.BigIntField()
    not_before_ms = fields.BigIntField()
    late_ms = fields.BigIntField()
    due_ms = fields.BigIntField(null=True)
    ended_ms = fields.BigIntField(null=True)

    class Meta:
        table = "withdrawal"


class WithdrawalTx(Model):
    tx_id = fields.CharField(max_length=60, primary_key=True)
    withdrawal_id = fields.UUIDField()
    no = fields.IntField()
    hot_key = fields.BinaryField()
    destination = fields.BinaryField()
    amount_qu = fields.BigIntField()
    signed_bytes = fields.BinaryField()
    tick = fields.BigIntField()
    epoch = fields.BigIntField()
    outgoing_qu = fields.BigIntField()
    outgoing_count = fields.BigIntField()
    known_tick = fields.BigIntField()
    signed_ms = fields.BigIntField()
    outcome = fields.CharField(max_length=20, null=True)
    decided_ms = fields.BigIntField(null=True)
    evidence = fields.JSONField[list[dict[str, object]]](null=True)

    class Meta:
        table = "withdrawal_tx"


class PayoutOrder(Model):
    account_id = fields.UUIDField(primary_key=True)
    id = fields.UUIDField(unique=True)
    address_id = fields.UUIDField()
    keep_qu = fields.BigIntField()
    least_qu = fields.BigIntField()
    since_ms = fields.BigIntField()
    made = fields.BigIntField(default=0)
    next_ms = fields.BigIntField()
    problem = fields.TextField(default="")

    class Meta:
        table = "payout_order"
