# SPDX-License-Identifier: Apache-2.0
"""What is stored for whom. The bytes are `store`'s; nothing here touches them.

An artifact belongs to one account. Its *owner* may read it once it is `usable`: uploaded by the owner itself, or made
by an attempt and paid (`release`). A digest alone never makes anything readable, and proves nothing: whoever announces
content that somebody else stored for the same account must send all of it, as if nobody had. That holds for owners and
for attempts alike (`sent_by`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID, uuid4

import msgspec

from qubix_coordinator.artifacts.tables import ArtifactRow
from qubix_coordinator.db.database import Tx, execute, one, rows, value
from qubix_coordinator.errors import InvalidInput, LimitExceeded
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.units import ARTIFACT_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What one account may announce."""

    bytes_max: int
    artifacts_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """`meta` is what the header of a `.npy` file says; None for other content and before it is complete."""

    account_id: UUID
    digest: bytes
    size_bytes: int
    complete: bool
    readable: bool
    meta: ArrayMeta | None

    @property
    def usable(self) -> bool:
        """Whether its owner may read it and give it to a job."""
        return self.complete and self.readable


async def find(tx: Tx, account_id: UUID, digest: bytes) -> Artifact | None:
    """Also unfinished and unpaid ones: look at `complete` and `usable`."""
    row = await ArtifactRow.filter(account_id=account_id, digest=digest).using_db(tx).first()
    return None if row is None else _artifact(row)


async def find_many(tx: Tx, account_id: UUID, digests: Iterable[bytes]) -> dict[bytes, Artifact]:
    found = await ArtifactRow.filter(account_id=account_id, digest__in=list(digests)).using_db(tx)
    return {bytes(row.digest): _artifact(row) for row in found}


async def announce(tx: Tx, account_id: UUID, digest: bytes, size_bytes: int, quota: Quota) -> Artifact:
    """The owner means to upload this. Raises InvalidInput (size) or LimitExceeded (quota).

    What is complete keeps its row; an unfinished one takes the size announced last.
    """
    check_size(size_bytes)
    await _check_quota(tx, account_id, digest, size_bytes, quota)
    return await _announce(tx, account_id, digest, size_bytes, "owner")


async def announce_output(tx: Tx, account_id: UUID, digest: bytes, size_bytes: int, writer: str) -> Artifact:
    """An attempt at one of the account's jobs means to upload this; not readable until `release`."""
    check_size(size_bytes)
    announced = await _announce(tx, account_id, digest, size_bytes, "attempt")
    await execute(
        tx,
        "INSERT INTO artifact_writer AS w (writer, artifact_id, size_bytes)"
        " SELECT $1, id, $4 FROM artifact WHERE account_id = $2 AND digest = $3"
        " ON CONFLICT (writer, artifact_id) DO UPDATE SET size_bytes = excluded.size_bytes WHERE NOT w.complete",
        writer,
        account_id,
        digest,
        size_bytes,
    )
    return announced


async def sent_by(tx: Tx, account_id: UUID, digest: bytes, writer: str) -> Artifact | None:
    """An output that this attempt sent whole; None for what anybody else stored, however equal."""
    sent = await value(
        tx,
        "SELECT true FROM artifact_writer w JOIN artifact a ON a.id = w.artifact_id"
        " WHERE w.writer = $1 AND w.complete AND a.account_id = $2 AND a.digest = $3 AND a.stored_at IS NOT NULL",
        writer,
        account_id,
        digest,
    )
    return await find(tx, account_id, digest) if sent else None


async def only_sent_by(tx: Tx, account_id: UUID, digest: bytes, writer: str) -> bool:
    """Whether the artifact is an unpaid output that nobody but `writer` announced."""
    found = await value(
        tx,
        "SELECT true FROM artifact a WHERE account_id = $1 AND digest = $2 AND origin = 'attempt' AND NOT readable"
        " AND NOT EXISTS (SELECT FROM artifact_writer w WHERE w.artifact_id = a.id AND w.writer <> $3) FOR UPDATE",
        account_id,
        digest,
        writer,
    )
    return bool(found)


async def announced_by(tx: Tx, account_id: UUID, writer: str, *, but: bytes) -> tuple[int, int]:
    """How many outputs, and how many bytes of them, an attempt has announced, one digest aside."""
    found = await one(
        tx,
        "SELECT count(*) AS outputs, coalesce(sum(w.size_bytes), 0)::bigint AS bytes"
        " FROM artifact_writer w JOIN artifact a ON a.id = w.artifact_id"
        " WHERE w.writer = $1 AND a.account_id = $2 AND a.digest <> $3",
        writer,
        account_id,
        but,
    )
    assert found is not None
    return found["outputs"], found["bytes"]


async def mark_stored(
    tx: Tx, account_id: UUID, digest: bytes, size_bytes: int, meta: ArrayMeta | None, *, writer: str | None
) -> Artifact:
    """The bytes are in the store, sent by `writer`: an attempt, or None for the owner. Safe to repeat."""
    await execute(
        tx,
        "UPDATE artifact SET size_bytes = $3, meta = coalesce(meta, $4::jsonb), readable = readable OR $5,"
        " stored_at = coalesce(stored_at, now()) WHERE account_id = $1 AND digest = $2",
        account_id,
        digest,
        size_bytes,
        None if meta is None else msgspec.json.encode(meta).decode(),
        writer is None,
    )
    if writer is not None:
        await execute(
            tx,
            "UPDATE artifact_writer SET complete = true, size_bytes = $4 FROM artifact a"
            " WHERE a.id = artifact_id AND writer = $1 AND a.account_id = $2 AND a.digest = $3",
            writer,
            account_id,
            digest,
            size_bytes,
        )
    stored = await find(tx, account_id, digest)
    assert stored is not None, "announced before it was uploaded"
    return stored


async def release(tx: Tx, account_id: UUID, digests: Iterable[bytes]) -> int:
    """Paid outputs become readable to their owner. Gives how many of them are stored (and so readable now)."""
    return await execute(
        tx,
        "UPDATE artifact SET readable = true WHERE account_id = $1 AND digest = ANY($2::bytea[])"
        " AND stored_at IS NOT NULL",
        account_id,
        list(digests),
    )


async def keep(tx: Tx, account_id: UUID, digests: Iterable[bytes]) -> None:
    """Until `tx` ends nobody gives these up; what refers to them then keeps them."""
    await rows(
        tx,
        "SELECT id FROM artifact WHERE account_id = $1 AND digest = ANY ($2::bytea[]) ORDER BY id FOR KEY SHARE",
        account_id,
        list(digests),
    )


async def give_up(tx: Tx, ids: list[UUID]) -> None:
    """From now on they are announcements without content that nobody goes on with."""
    await execute(
        tx,
        "UPDATE artifact SET stored_at = NULL, readable = false, meta = NULL, announced_at = to_timestamp(0)"
        " WHERE id = ANY ($1::uuid[])",
        ids,
    )


async def lock_unfinished(tx: Tx, older_than_s: float) -> tuple[UUID, bytes] | None:
    """Account and digest of an announcement that nobody goes on with; nobody else gets at it until `tx` ends."""
    found = await one(
        tx,
        "SELECT account_id, digest FROM artifact"
        " WHERE stored_at IS NULL AND announced_at < now() - make_interval(secs => $1)"
        " ORDER BY announced_at LIMIT 1 FOR UPDATE SKIP LOCKED",
        older_than_s,
    )
    return None if found is None else (found["account_id"], bytes(found["digest"]))


async def forget(tx: Tx, account_id: UUID, digest: bytes) -> None:
    await execute(tx, "DELETE FROM artifact WHERE account_id = $1 AND digest = $2", account_id, digest)


async def forget_writer(tx: Tx, account_id: UUID, digest: bytes, writer: str) -> None:
    """The artifact stays for what else it is."""
    await execute(
        tx,
        "DELETE FROM artifact_writer w USING artifact a WHERE a.id = w.artifact_id AND w.writer = $1"
        " AND a.account_id = $2 AND a.digest = $3",
        writer,
        account_id,
        digest,
    )


def check_size(size_bytes: int) -> None:
    if not 1 <= size_bytes <= ARTIFACT_BYTES_MAX:
        raise InvalidInput(
            "size_bytes",
            f"{size_bytes} bytes are not between 1 and {ARTIFACT_BYTES_MAX}",
            "Split the data into smaller arrays",
        )


def _artifact(row: ArtifactRow) -> Artifact:
    return Artifact(
        account_id=row.account_id,
        digest=bytes(row.digest),
        size_bytes=row.size_bytes,
        complete=row.stored_at is not None,
        readable=row.readable,
        meta=None if row.meta is None else msgspec.convert(row.meta, ArrayMeta),
    )


async def _announce(tx: Tx, account_id: UUID, digest: bytes, size_bytes: int, origin: str) -> Artifact:
    known = await find(tx, account_id, digest)
    # Not told to an attempt, which would learn what else the account stores: its upload will not have this digest.
    if origin == "owner" and known is not None and known.complete and known.size_bytes != size_bytes:
        raise InvalidInput(
            "size_bytes", f"this content has {known.size_bytes} bytes", "Announce the size of the content itself"
        )
    # An owner's announcement counts to the quota from then on, whoever was first.
    await execute(
        tx,
        "INSERT INTO artifact AS a (id, account_id, digest, size_bytes, origin) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (account_id, digest) DO UPDATE SET"
        " size_bytes = CASE WHEN a.stored_at IS NULL THEN excluded.size_bytes ELSE a.size_bytes END,"
        " announced_at = now(),"
        " origin = CASE WHEN excluded.origin = 'owner' THEN 'owner' ELSE a.origin END",
        uuid4(),
        account_id,
        digest,
        size_bytes,
        origin,
    )
    announced = await find(tx, account_id, digest)
    assert announced is not None
    return announced


async def _check_quota(tx: Tx, account_id: UUID, digest: bytes, size_bytes: int, quota: Quota) -> None:
    used = await one(
        tx,
        "SELECT count(*) AS artifacts, coalesce(sum(size_bytes), 0)::bigint AS bytes FROM artifact"
        " WHERE account_id = $1 AND origin = 'owner' AND digest <> $2",
        account_id,
        digest,
    )
    assert used is not None
    if used["artifacts"] + 1 > quota.artifacts_max or used["bytes"] + size_bytes > quota.bytes_max:
        raise LimitExceeded(
            f"the account stores {used['bytes']} bytes in {used['artifacts']} artifacts;"
            f" {size_bytes} more are over its quota of {quota.bytes_max} bytes in {quota.artifacts_max} artifacts",
            field="size_bytes",
            remedy="Use artifacts that are stored already, or ask the operator for a larger quota",
        )
