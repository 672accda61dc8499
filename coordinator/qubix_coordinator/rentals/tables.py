# SPDX-License-Identifier: Apache-2.0
"""The rental as an ORM model; schema.sql is the truth about its constraints. Periods and settlements are plain SQL."""

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model


class Rental(Model):
    id = fields.UUIDField(primary_key=True)
    no = fields.BigIntField()
    account_id = fields.UUIDField()
    idempotency_key = fields.TextField()
    body_digest = fields.BinaryField()
    order_raw = fields.BinaryField(null=True)
    listing_id = fields.UUIDField()
    peer_id = fields.TextField()
    device_id = fields.TextField()
    kind = fields.TextField()
    model = fields.TextField()
    backends = ArrayField(element_type="text")
    state = fields.TextField()
    reason = fields.TextField()
    detail = fields.TextField()
    closing = fields.CharField(max_length=40, null=True)
    revision = fields.BigIntField(default=0)
    rate_qu_per_h = fields.BigIntField()
    rate_max = fields.BigIntField(null=True)
    fee_bps = fields.IntField()
    offer_digest = fields.BinaryField()
    seconds = fields.BigIntField()
    hold_qu = fields.BigIntField()
    extensions = fields.IntField(default=0)
    billed_ms = fields.BigIntField(default=0)
    settled_ms = fields.BigIntField(default=0)
    parts = fields.IntField(default=0)
    paid_qu = fields.BigIntField(default=0)
    fee_qu = fields.BigIntField(default=0)
    returned_qu = fields.BigIntField(default=0)
    unsettled_since_ms = fields.BigIntField(null=True)
    nonce = fields.BinaryField(null=True)
    nonce_asked_ms = fields.BigIntField(null=True)
    sent_ms = fields.BigIntField()
    since_ms = fields.BigIntField()
    answered_ms = fields.BigIntField(null=True)
    created_ms = fields.BigIntField()
    started_ms = fields.BigIntField(null=True)
    ends_ms = fields.BigIntField(null=True)
    ended_ms = fields.BigIntField(null=True)
    due_ms = fields.BigIntField(null=True)
    group_id = fields.UUIDField(null=True)
    member = fields.IntField(default=0)

    class Meta:
        table = "rental"

    @property
    def held_qu(self) -> int:
        left: int = self.hold_qu - self.paid_qu - self.fee_qu - self.returned_qu
        return left
