# SPDX-License-Identifier: Apache-2.0
"""Pairing codes: made by an account, brought by a node, confirmed by its fingerprint; then the node is the account's.

Only which account the node belongs to changes. What it earned before stays where its own key opens it, and that key
never opens the person's account (docs/adr/0034).
"""

import json
import secrets
from dataclasses import dataclass
from uuid import UUID, uuid4

import msgspec

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.pairing_rules import (
    FOLLOWED_MS,
    KEPT_MS,
    LISTED_MAX,
    OPEN,
    OPEN_MAX,
    Event,
    decide,
    due_ms,
    may_join,
)
from qubix_coordinator.db.database import Row, Tx, execute, one, rows, value
from qubix_coordinator.errors import Conflict, InvalidInput, NotFound
from qubix_coordinator.outbox import events
from qubix_protocol.keys import public_key_of
from qubix_protocol.pairing import (
    CODE_BYTES,
    PairedDevice,
    PairingState,
    PairingView,
    code_of,
    devices_of,
    digest_of_code,
    fingerprint,
    same_fingerprint,
)

_ASK_ANEW = "Make a new code on the page, and start the node with that one"
# The devices of its node and the last self-test of each: what the page follows after the code was brought.
_DEVICES = """
    SELECT coalesce(jsonb_agg(jsonb_build_object('listing_id', l.id, 'model', l.model, 'online', l.online,
               'verified', l.verified, 'selftest', coalesce((
                   SELECT CASE WHEN t.passed THEN 'pass' ELSE 'fail' END FROM self_test t
                    WHERE t.peer_id = l.peer_id AND t.device_id = l.device_id
                    ORDER BY t.heard_ms DESC, t.id LIMIT 1), '')) ORDER BY l.id), '[]'::jsonb)::text
      FROM listing l WHERE l.peer_id = {peer}
"""
_VIEW = f"SELECT p.*, ({_DEVICES.format(peer='p.peer_id')}) AS devices FROM pairing p"  # noqa: S608 - our own words


@dataclass(frozen=True, slots=True)
class Standing:
    """Of a node: the account of its own key, the account it belongs to, and its devices in the market."""

    own: UUID | None
    owner: UUID | None
    devices: tuple[PairedDevice, ...]


def topic(pairing_id: UUID) -> str:
    return f"pairing:{pairing_id}"


async def make(tx: Tx, account_id: UUID, name: str, *, now_ms: int) -> tuple[str, PairingView]:
    """The plain code, which nobody can ask for again."""
    await accounts.lock_account(tx, account_id)
    waiting = await rows(
        tx,
        "SELECT id FROM pairing WHERE account_id = $1 AND state = 'waiting' ORDER BY made_ms DESC, id OFFSET $2",
        account_id,
        OPEN_MAX - 1,
    )
    for row in waiting:
        await _move(tx, await _locked(tx, row["id"], account_id), Event.REFUSED, now_ms)
    code, key = code_of(secrets.token_bytes(CODE_BYTES)), uuid4()
    await execute(
        tx,
        "INSERT INTO pairing (id, digest, account_id, name, state, made_ms, due_ms)"
        " VALUES ($1, $2, $3, $4, 'waiting', $5, $6)",
        key,
        digest_of_code(code),
        account_id,
        accounts.clean_name(name),
        now_ms,
        due_ms(PairingState.WAITING, now_ms),
    )
    return code, await view(tx, account_id, key)


async def brought(tx: Tx, peer_id: str, code: str, *, now_ms: int) -> PairingView | Conflict:
    """For a node that has signed that it brings this code. A Conflict is to be raised after the commit: that another
    one came is kept for the person to see. Raises NotFound, Conflict (the node is somebody else's)."""
    digest = digest_of_code(code)
    key = None if digest is None else await value(tx, "SELECT id FROM pairing WHERE digest = $1", digest)
    if key is None:
        raise NotFound("there is no such pairing code", field="code", remedy=_ASK_ANEW)
    node = await accounts.ensure_node(tx, peer_id)
    row = await _locked(tx, key)
    row = await _ended_if_due(tx, row, now_ms)
    if row["peer_id"] == peer_id:
        return await _view(tx, key)
    if row["peer_id"] is not None:
        await execute(tx, "UPDATE pairing SET others = others + 1 WHERE id = $1", key)
        await _tell(tx, key)
        return Conflict("another node has used this code", field="code", remedy=_ASK_ANEW)
    if row["state"] != PairingState.WAITING:
        return Conflict(f"this code is {row['state']}", field="code", remedy=_ASK_ANEW)
    if not may_join(node.account_id, await _own_account(tx, peer_id), row["account_id"]):
        raise _taken()
    await _move(tx, row, Event.BROUGHT, now_ms, peer_id)
    return await _view(tx, key)


async def confirm(tx: Tx, account_id: UUID, pairing_id: UUID, compared: str, *, now_ms: int) -> PairingView | Conflict:
    """The node is the account's from here on. A Conflict is to be raised after the commit. Raises NotFound,
    InvalidInput (another fingerprint), Conflict."""
    row = await _ended_if_due(tx, await _locked(tx, pairing_id, account_id), now_ms)
    if row["state"] == PairingState.CONFIRMED:
        return await _view(tx, pairing_id)
    if row["state"] != PairingState.SEEN:
        why = "no node has brought the code yet" if row["state"] == PairingState.WAITING else f"it is {row['state']}"
        return Conflict(f"there is nothing to confirm: {why}", field="pairing_id", remedy=_ASK_ANEW)
    peer_id = row["peer_id"]
    if not same_fingerprint(compared, fingerprint(public_key_of(peer_id))):
        raise InvalidInput(
            "fingerprint",
            "this is not the fingerprint of the node that brought the code",
            "Refuse it and make a new code",
        )
    await _join(tx, peer_id, account_id)
    await _move(tx, row, Event.CONFIRMED, now_ms)
    return await _view(tx, pairing_id)


async def _join(tx: Tx, peer_id: str, account_id: UUID) -> None:
    """Raises Conflict when the node belongs to another person by now."""
    of_node = await value(tx, "SELECT account_id FROM node WHERE peer_id = $1 FOR NO KEY UPDATE", peer_id)
    if not may_join(of_node, await _own_account(tx, peer_id), account_id):
        raise _taken()
    await execute(tx, "UPDATE node SET account_id = $2 WHERE peer_id = $1", peer_id, account_id)


def _taken() -> Conflict:
    return Conflict(
        "this node belongs to another account",
        field="peer_id",
        remedy="Give it a key of its own: stop it, take its node.key away, and start it with a new code",
    )


async def _own_account(tx: Tx, peer_id: str) -> UUID:
    found = await accounts.account_of_key(tx, public_key_of(peer_id))
    assert found is not None, "every node has come with its key"
    return found


async def refuse(tx: Tx, account_id: UUID, pairing_id: UUID, *, now_ms: int) -> PairingView:
    """Takes back a code, or says that the node is not the person's. What has ended stays as it is. Raises NotFound."""
    row = await _ended_if_due(tx, await _locked(tx, pairing_id, account_id), now_ms)
    await _move(tx, row, Event.REFUSED, now_ms)
    return await _view(tx, pairing_id)


async def view(tx: Tx, account_id: UUID, pairing_id: UUID) -> PairingView:
    """Raises NotFound for one that is not the account's."""
    found = await one(tx, f"{_VIEW} WHERE p.id = $1 AND p.account_id = $2", pairing_id, account_id)
    if found is None:
        raise _missing()
    return _shown(found)


async def views(tx: Tx, account_id: UUID) -> list[PairingView]:
    """Newest first."""
    found = await rows(
        tx, f"{_VIEW} WHERE p.account_id = $1 ORDER BY p.made_ms DESC, p.id LIMIT $2", account_id, LISTED_MAX
    )
    return [_shown(row) for row in found]


async def standing(tx: Tx, public_key: bytes) -> Standing:
    """Of a node that may never have been here."""
    found = await one(
        tx,
        "SELECT k.account_id AS own, n.account_id AS owner, "  # noqa: S608 - our own words from above alone
        f"({_DEVICES.format(peer='n.peer_id')}) AS devices FROM account_key k"
        " LEFT JOIN node n ON n.public_key = k.public_key WHERE k.public_key = $1",
        public_key,
    )
    if found is None:
        return Standing(None, None, ())
    return Standing(found["own"], found["owner"], devices_of(json.loads(found["devices"])))


async def tell(tx: Tx, peer_id: str, *, now_ms: int) -> None:
    """A device of the node was listed or tested: whoever follows its pairing sees it."""
    for row in await rows(
        tx, "SELECT id FROM pairing WHERE peer_id = $1 AND seen_ms > $2 ORDER BY id", peer_id, now_ms - FOLLOWED_MS
    ):
        await _tell(tx, row["id"])


async def sweep(tx: Tx, *, now_ms: int) -> int:
    """Ends what is due and forgets what ended long ago; gives how many ended."""
    due = await rows(
        tx, "SELECT id FROM pairing WHERE due_ms <= $1 ORDER BY id LIMIT 500 FOR UPDATE SKIP LOCKED", now_ms
    )
    for row in due:
        await _ended_if_due(tx, await _locked(tx, row["id"]), now_ms)
    await execute(tx, "DELETE FROM pairing WHERE ended_ms < $1", now_ms - KEPT_MS)
    return len(due)


async def _locked(tx: Tx, pairing_id: UUID, account_id: UUID | None = None) -> Row:
    found = await one(
        tx,
        "SELECT * FROM pairing WHERE id = $1 AND ($2::uuid IS NULL OR account_id = $2) FOR UPDATE",
        pairing_id,
        account_id,
    )
    if found is None:
        raise _missing()
    return found


def _missing() -> NotFound:
    return NotFound("there is no such pairing", field="pairing_id", remedy="GET /api/v1/pairings lists yours")


async def _ended_if_due(tx: Tx, row: Row, now_ms: int) -> Row:
    if row["due_ms"] is None or row["due_ms"] > now_ms:
        return row
    await _move(tx, row, Event.DUE, now_ms)
    return await _locked(tx, row["id"])


async def _move(tx: Tx, row: Row, event: Event, now_ms: int, peer_id: str | None = None) -> None:
    """`peer_id`: of the node that brought the code just now."""
    state = decide(PairingState(row["state"]), event)
    if state is None:
        return
    await execute(
        tx,
        "UPDATE pairing SET state = $2, due_ms = $3, ended_ms = $4, peer_id = coalesce($5, peer_id),"
        " seen_ms = CASE WHEN $5::text IS NULL THEN seen_ms ELSE $6 END WHERE id = $1",
        row["id"],
        state.value,
        due_ms(state, now_ms),
        None if state in OPEN else now_ms,
        peer_id,
        now_ms,
    )
    await _tell(tx, row["id"])


async def _view(tx: Tx, pairing_id: UUID) -> PairingView:
    found = await one(tx, f"{_VIEW} WHERE p.id = $1", pairing_id)
    assert found is not None, "it is locked by this transaction"
    return _shown(found)


async def _tell(tx: Tx, pairing_id: UUID) -> None:
    await events.emit(tx, topic(pairing_id), msgspec.to_builtins(await _view(tx, pairing_id)))


def _shown(row: Row) -> PairingView:
    peer_id = row["peer_id"] or ""
    return PairingView(
        pairing_id=str(row["id"]),
        name=row["name"],
        state=PairingState(row["state"]),
        made_ms=row["made_ms"],
        due_ms=row["due_ms"],
        peer_id=peer_id,
        fingerprint=fingerprint(public_key_of(peer_id)) if peer_id else "",
        seen_ms=row["seen_ms"],
        ended_ms=row["ended_ms"],
        others=row["others"],
        devices=devices_of(json.loads(row["devices"])),
    )
