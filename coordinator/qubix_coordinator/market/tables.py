# SPDX-License-Identifier: Apache-2.0
"""The listing as an ORM model; schema.sql is the truth about its constraints."""

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model


class Listing(Model):
    id = fields.UUIDField(primary_key=True)
    peer_id = fields.TextField()
    device_id = fields.TextField()
    kind = fields.TextField()
    model = fields.TextField()
    memory_bytes = fields.BigIntField()
    cores = fields.BigIntField()
    driver = fields.TextField()
    cuda = fields.TextField()
    compute_capability = fields.TextField()
    backends = ArrayField(element_type="text")
    rate_qu_per_h = fields.BigIntField()
    region = fields.TextField()
    availability = fields.TextField()
    rates = fields.JSONField[list[dict[str, object]]]()
    jobs_parallel = fields.IntField()
    isolation = fields.TextField(default="limited")
    metrics = fields.JSONField[dict[str, object]](null=True)
    offer_digest = fields.BinaryField()
    offer_raw = fields.BinaryField()
    online = fields.BooleanField(default=True)
    rental_id = fields.UUIDField(null=True)
    """While set, it is off the market: `rentals` decides."""
    verified = fields.BooleanField(default=False)
    jobs_accepted = fields.IntField(default=0)
    jobs_rejected = fields.IntField(default=0)
    failures = fields.IntField(default=0)
    backoff_until_ms = fields.BigIntField(default=0)
    metrics_ms = fields.BigIntField(null=True)
    offered_ms = fields.BigIntField()
    updated_ms = fields.BigIntField()

    class Meta:
        table = "listing"
