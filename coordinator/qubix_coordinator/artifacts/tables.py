# SPDX-License-Identifier: Apache-2.0
"""The artifact's row as an ORM model; schema.sql is the truth about its constraints."""

from tortoise import fields
from tortoise.models import Model


class ArtifactRow(Model):
    id = fields.UUIDField(primary_key=True)
    account_id = fields.UUIDField()
    digest = fields.BinaryField()
    size_bytes = fields.BigIntField()
    origin = fields.TextField()
    readable = fields.BooleanField(default=False)
    meta = fields.JSONField[dict[str, object]](null=True)
    announced_at = fields.DatetimeField(auto_now_add=True)
    stored_at = fields.DatetimeField(null=True)

    class Meta:
        table = "artifact"
