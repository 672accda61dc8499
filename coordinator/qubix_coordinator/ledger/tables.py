# SPDX-License-Identifier: Apache-2.0
"""Read-only models of schema.sql; writing is `post`'s alone, and the database refuses everybody else."""

from tortoise import fields
from tortoise.models import Model


class TransferRow(Model):
    id = fields.UUIDField(primary_key=True)
    kind = fields.TextField()
    cause = fields.TextField()
    job_id = fields.UUIDField(null=True)
    network = fields.TextField()
    posted_at = fields.DatetimeField()

    class Meta:
        table = "transfer"


class HoldRow(Model):
    job_id = fields.UUIDField(primary_key=True)
    account_id = fields.BigIntField()
    held_qu = fields.BigIntField()
    paid_qu = fields.BigIntField()
    fees_qu = fields.BigIntField()
    returned_qu = fields.BigIntField()
    opened_at = fields.DatetimeField()
    closed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "hold"
