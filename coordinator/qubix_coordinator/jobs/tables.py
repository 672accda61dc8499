# SPDX-License-Identifier: Apache-2.0
"""The jobs' tables as ORM models; schema.sql is the truth about their constraints."""

from uuid import UUID

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model


class Job(Model):
    id = fields.UUIDField(primary_key=True)
    no = fields.BigIntField()
    account_id = fields.UUIDField()
    data_account_id = fields.UUIDField(null=True)
    only_units = fields.JSONField[list[list[int]]](null=True)
    units_whole = fields.BigIntField(null=True)
    idempotency_key = fields.TextField()
    body_digest = fields.BinaryField()
    state = fields.TextField()
    reason = fields.TextField()
    detail = fields.TextField()
    closing = fields.CharField(max_length=40, null=True)
    revision = fields.BigIntField(default=1)
    kernel = fields.TextField()
    kernel_version = fields.IntField()
    params = fields.JSONField[dict[str, bool | int | float | str]]()
    params_digest = fields.BinaryField()
    inputs_digest = fields.BinaryField()
    outputs = fields.JSONField[dict[str, object]]()
    units = fields.BigIntField()
    units_accepted = fields.BigIntField(default=0)
    units_waiting = fields.BigIntField(default=0)
    fraction = fields.FloatField(default=0.0)
    spread = fields.IntField(null=True)
    hands_max = fields.IntField(default=1)
    cap_qu = fields.BigIntField()
    paid_qu = fields.BigIntField(default=0)
    fee_qu = fields.BigIntField(default=0)
    returned_qu = fields.BigIntField(default=0)
    has_verifier = fields.BooleanField(default=True)
    owed_qu = fields.BigIntField(default=0)
    due_ms = fields.BigIntField(null=True)
    rate_max = fields.BigIntField(null=True)
    provider = fields.CharField(max_length=64, null=True)
    region = fields.TextField(default="")
    wanted = fields.TextField(default="")
    rental_id = fields.UUIDField(null=True)
    order_raw = fields.BinaryField(null=True)
    fence = fields.BigIntField(default=0)
    bad_attempts = fields.IntField(default=0)
    created_ms = fields.BigIntField()
    queued_ms = fields.BigIntField()
    match_ms = fields.BigIntField()
    deadline_ms = fields.BigIntField()
    ended_ms = fields.BigIntField(null=True)

    class Meta:
        table = "job"

    @property
    def data_owner(self) -> UUID:
        """Whose inputs it reads, and whose its outputs are."""
        owner: UUID = self.data_account_id or self.account_id
        return owner

    @property
    def hold_left_qu(self) -> int:
        """In escrow, owed or not."""
        left: int = self.cap_qu - self.paid_qu - self.fee_qu - self.returned_qu
        return left

    @property
    def settles_by_check(self) -> bool:
        """Nobody's word is waited for: there is a verifier, or nothing to pay."""
        return bool(self.has_verifier) or self.rental_id is not None

    @property
    def hold_spare_qu(self) -> int:
        """What is left of the hold beside what is owed for delivered work."""
        spare: int = self.hold_left_qu - self.owed_qu
        return spare


class JobInput(Model):
    id = fields.BigIntField(primary_key=True)
    job_id = fields.UUIDField()
    name = fields.TextField()
    digest = fields.BinaryField()
    size_bytes = fields.BigIntField()
    meta = fields.JSONField[dict[str, object]]()

    class Meta:
        table = "job_input"


class Attempt(Model):
    id = fields.UUIDField(primary_key=True)
    job_id = fields.UUIDField()
    job_no = fields.BigIntField()
    fence = fields.BigIntField()
    listing_id = fields.UUIDField()
    rental_id = fields.UUIDField(null=True)
    peer_id = fields.TextField()
    device_id = fields.TextField()
    model = fields.TextField()
    backend = fields.TextField()
    state = fields.TextField()
    reason = fields.TextField()
    detail = fields.TextField()
    rate_qu_per_h = fields.BigIntField()
    offer_digest = fields.BinaryField()
    fee_bps = fields.IntField(null=True)
    ranges = fields.JSONField[list[list[int]]]()
    units = fields.BigIntField()
    chunk_units = fields.BigIntField()
    forecast_ms = fields.BigIntField()
    rated_ms = fields.FloatField(null=True)
    around_ms = fields.FloatField(null=True)
    pace = fields.FloatField(null=True)
    usual_ms = fields.FloatField(null=True)
    usual_around_ms = fields.FloatField(null=True)
    time_limit_ms = fields.BigIntField()
    links = fields.IntField(default=0)
    units_done = fields.BigIntField(default=0)
    claimed_ms = fields.BigIntField(default=0)
    head = fields.BinaryField()
    fraction = fields.FloatField(default=0.0)
    report_body = fields.BinaryField(null=True)
    report_raw = fields.BinaryField(null=True)
    units_accepted = fields.BigIntField(default=0)
    observed_ms = fields.BigIntField(default=0)
    billed_ms = fields.BigIntField(default=0)
    paid_qu = fields.BigIntField(default=0)
    fee_qu = fields.BigIntField(default=0)
    owed_qu = fields.BigIntField(default=0)
    verdict = fields.TextField(default="")
    check_ms = fields.BigIntField(default=0)
    settlement_raw = fields.BinaryField(null=True)
    settled_ms = fields.BigIntField(null=True)
    leaving = fields.BooleanField(default=False)
    created_ms = fields.BigIntField()
    sent_ms = fields.BigIntField()
    started_ms = fields.BigIntField(null=True)
    heard_ms = fields.BigIntField(null=True)
    limit_ms = fields.BigIntField(null=True)
    ended_ms = fields.BigIntField(null=True)
    due_ms = fields.BigIntField(null=True)
    claimed_by = fields.TextField(default="")
    claim_until_ms = fields.BigIntField(default=0)

    class Meta:
        table = "attempt"


class ChainLink(Model):
    id = fields.BigIntField(primary_key=True)
    attempt_id = fields.UUIDField()
    job_no = fields.BigIntField()
    index = fields.IntField()
    start = fields.BigIntField()
    stop = fields.BigIntField()
    output_digest = fields.BinaryField()
    output_bytes = fields.BigIntField()
    claimed_ms = fields.BigIntField()
    predecessor = fields.BinaryField()
    chain_digest = fields.BinaryField()
    envelope = fields.BinaryField()
    heard_ms = fields.BigIntField()
    observed_ms = fields.BigIntField()
    verdict = fields.BooleanField(null=True)
    paid = fields.BooleanField(default=False)
    owed = fields.BooleanField(default=False)

    class Meta:
        table = "link"


class Verdict(Model):
    attempt_id = fields.UUIDField(primary_key=True)
    carried_out = fields.BooleanField()
    accepted = fields.BooleanField()
    reason = fields.TextField()
    detail = fields.TextField()
    parts = ArrayField(element_type="boolean")
    seed = fields.BinaryField()
    check_ms = fields.BigIntField()
    verifier = fields.TextField()
    recorded_ms = fields.BigIntField()
    applied = fields.BooleanField(default=False)

    class Meta:
        table = "verdict"


class Evidence(Model):
    id = fields.BigIntField(primary_key=True)
    attempt_id = fields.UUIDField()
    kind = fields.TextField()
    digest = fields.BinaryField()
    envelope = fields.BinaryField()
    heard_ms = fields.BigIntField()

    class Meta:
        table = "evidence"
