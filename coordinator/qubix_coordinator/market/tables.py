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
    cpu_cores = fields.IntField(default=0)
    cpu_memory_bytes = fields.BigIntField(default=0)
    disk_free_bytes = fields.BigIntField(default=0)
    inet_down_bytes_per_s = fields.BigIntField(default=0)
    inet_up_bytes_per_s = fields.BigIntField(default=0)
    notice_s = fields.IntField(default=0)
    offer_digest = fields.BinaryField()
    offer_raw = fields.BinaryField()
    online = fields.BooleanField(default=True)
    rental_id = fields.UUIDField(null=True)
    """While set, it is off the market: `rentals` decides."""
    country = fields.TextField(default="")
    country_seen = fields.BooleanField(default=False)
    devices_alike = fields.IntField(default=1)
    browser = fields.BooleanField(default=False)
    fallback = fields.BooleanField(default=False)
    verified = fields.BooleanField(default=False)
    score = fields.FloatField(default=0.0)
    reliability = fields.FloatField(default=0.0)
    listed_ms = fields.BigIntField(default=0)
    up_since_ms = fields.BigIntField(default=0)
    up_seen_ms = fields.BigIntField(default=0)
    up_ms = fields.FloatField(default=0.0)
    jobs_accepted = fields.IntField(default=0)
    jobs_rejected = fields.IntField(default=0)
    failures = fields.IntField(default=0)
    backoff_until_ms = fields.BigIntField(default=0)
    metrics_ms = fields.BigIntField(null=True)
    offered_ms = fields.BigIntField()
    updated_ms = fields.BigIntField()
    expired_told_ms = fields.BigIntField(null=True)
    """The `offered_ms` of which it was told that it is too old: while the two are the same, it is out of the market."""
    stale_told_ms = fields.BigIntField(null=True)
    """The `metrics_ms` of which the same was told."""

    class Meta:
        table = "listing"
