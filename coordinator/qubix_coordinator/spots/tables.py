# SPDX-License-Identifier: Apache-2.0
"""Spot checks as ORM models; jobs/schema_5_spot.sql is the truth about their constraints."""

from tortoise import fields
from tortoise.models import Model


class SpotCheck(Model):
    attempt_id = fields.UUIDField(primary_key=True)
    job_id = fields.UUIDField()
    peer_id = fields.TextField()
    provider_id = fields.UUIDField()
    state = fields.TextField()
    detail = fields.TextField(default="")
    start = fields.BigIntField()
    stop = fields.BigIntField()
    worth_qu = fields.BigIntField()
    draws = fields.IntField(default=0)
    against = fields.IntField(default=0)
    rerun_job_id = fields.UUIDField(null=True)
    look_id = fields.UUIDField(null=True)
    drawn_ms = fields.BigIntField()
    look_ms = fields.BigIntField(default=0)
    due_ms = fields.BigIntField(null=True)
    ended_ms = fields.BigIntField(null=True)

    class Meta:
        table = "spot_check"


class SpotRerun(Model):
    job_id = fields.UUIDField(primary_key=True)
    attempt_id = fields.UUIDField()
    peer_id = fields.TextField()
    draw = fields.IntField()
    lent_qu = fields.BigIntField()
    lent_ms = fields.BigIntField()
    cost_qu = fields.BigIntField(default=0)
    same = fields.BooleanField(null=True)
    settled = fields.BooleanField(default=False)

    class Meta:
        table = "spot_rerun"
