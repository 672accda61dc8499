# SPDX-License-Identifier: Apache-2.0
"""The disputes' table as an ORM model; schema.sql is the truth about its constraints."""

from tortoise import fields
from tortoise.models import Model


class Dispute(Model):
    id = fields.UUIDField(primary_key=True)
    no = fields.BigIntField()
    job_id = fields.UUIDField()
    attempt_id = fields.UUIDField()
    fence = fields.BigIntField()
    peer_id = fields.TextField()
    opened_by = fields.TextField()
    consumer_id = fields.UUIDField()
    provider_id = fields.UUIDField()
    state = fields.TextField()
    checked = fields.BooleanField()
    in_window = fields.BooleanField()
    ranges = fields.JSONField[list[list[int]]]()
    stake_qu = fields.BigIntField()
    bond_qu = fields.BigIntField()
    answer_bond_qu = fields.BigIntField(default=0)
    finding = fields.TextField(default="none")
    rerun_job_id = fields.UUIDField(null=True)
    rerun_peer_id = fields.CharField(max_length=128, null=True)
    rerun_cost_qu = fields.BigIntField(default=0)
    rerun_settled = fields.BooleanField(default=True)
    draws = fields.IntField(default=0)
    outcome = fields.CharField(max_length=20, null=True)
    award_qu = fields.BigIntField(default=0)
    from_hold_qu = fields.BigIntField(default=0)
    from_provider_qu = fields.BigIntField(default=0)
    from_fees_qu = fields.BigIntField(default=0)
    from_fund_qu = fields.BigIntField(default=0)
    opened_ms = fields.BigIntField()
    due_ms = fields.BigIntField(null=True)
    look_ms = fields.BigIntField(default=0)
    resolved_ms = fields.BigIntField(null=True)
    revision = fields.BigIntField(default=0)

    class Meta:
        table = "dispute"
