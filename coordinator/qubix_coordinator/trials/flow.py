# SPDX-License-Identifier: Apache-2.0
"""A trial from answer to answer. Each statement of a node is one transaction under the trial's lock.

The key is drawn when the last device is full: until then nobody can know what will be asked of the memory.
"""

import logging
import secrets
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from qubix_coordinator.db.database import Row, Tx, execute, rows
from qubix_coordinator.jobs import flow as jobs
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.trials import parts as stored
from qubix_coordinator.trials import rules, standing
from qubix_coordinator.trials.rules import REMEDIES, Part, State, Verdict, Why
from qubix_protocol.messages import Message
from qubix_protocol.trials import TrialAnswer, TrialEnd, TrialFailed, TrialFilled, TrialGo, TrialProve, TrialReady

log = logging.getLogger(__name__)
_KNOWN_PROBLEMS: Final = frozenset({"out_of_memory", "kernel_error", "bad_input", "box", "worker_lost", "busy"})


def slack_ms(desk: Desk) -> int:
    return round(desk.settings.trial_slack_s * 1000)


async def on_ready(desk: Desk, peer_id: str, message: TrialReady) -> None:
    async def step(tx: Tx) -> None:
        trial = await stored.open_of(tx, peer_id, message.trial_id)
        if trial is None or trial["state"] != State.ASKED:
            return
        await execute(
            tx,
            "UPDATE trial_part SET ready = true WHERE trial_id = $1 AND device_id = $2",
            trial["id"],
            message.device_id,
        )
        parts = await stored.of(tx, trial["id"])
        if all(part.ready for part in parts):
            limit = max(rules.fill_ms_max(part, slack_ms(desk)) for part in parts)
            seed = secrets.token_bytes(32)
            await _go_on(desk, tx, trial, State.FILLING, "seed", seed, limit)
            await jobs.tell(tx, peer_id, TrialGo(trial_id=message.trial_id, seed=seed))

    await desk.db.run(step)


async def on_filled(desk: Desk, peer_id: str, message: TrialFilled, took_ms: int | None) -> None:
    """`took_ms` since the command was sealed; None: not in this session."""

    async def step(tx: Tx) -> None:
        trial = await _in_time(desk, tx, peer_id, message, State.FILLING, took_ms)
        if trial is None:
            return
        await execute(
            tx,
            "UPDATE trial_part SET fill_ms = $3 WHERE trial_id = $1 AND device_id = $2 AND fill_ms IS NULL",
            trial["id"],
            message.device_id,
            took_ms,
        )
        parts = await stored.of(tx, trial["id"])
        if await _ended_by_fault(desk, tx, trial, parts):
            return
        if all(part.fill_ms is not None for part in parts):
            limit = max(rules.proof_ms_max(part, slack_ms(desk)) for part in parts)
            key = secrets.token_bytes(32)
            await _go_on(desk, tx, trial, State.PROVING, "key", key, limit)
            await jobs.tell(tx, peer_id, TrialProve(trial_id=message.trial_id, key=key))

    await desk.db.run(step)


async def on_answer(desk: Desk, peer_id: str, message: TrialAnswer, took_ms: int | None) -> bool:
    """Whether something waits to be judged now."""

    async def step(tx: Tx) -> bool:
        trial = await _in_time(desk, tx, peer_id, message, State.PROVING, took_ms)
        if trial is None:
            return False
        await execute(
            tx,
            "UPDATE trial_part SET proof_ms = $3, digests = $4"
            " WHERE trial_id = $1 AND device_id = $2 AND proof_ms IS NULL",
            trial["id"],
            message.device_id,
            took_ms,
            message.digests,
        )
        parts = await stored.of(tx, trial["id"])
        if await _ended_by_fault(desk, tx, trial, parts) or any(part.proof_ms is None for part in parts):
            return False
        await execute(
            tx,
            "UPDATE trial SET state = $2, due_ms = $3 WHERE id = $1",
            trial["id"],
            State.JUDGING.value,
            desk.now_ms() + rules.PREPARE_MS,
        )
        return True

    return await desk.db.run(step)


async def on_failed(desk: Desk, peer_id: str, message: TrialFailed) -> None:
    async def step(tx: Tx) -> None:
        trial = await stored.open_of(tx, peer_id, message.trial_id)
        if trial is None or trial["state"] == State.JUDGING:
            return
        problem = message.reason if message.reason in _KNOWN_PROBLEMS else "worker_lost"
        await execute(
            tx,
            "UPDATE trial_part SET problem = $3, detail = $4 WHERE trial_id = $1 AND device_id = $2",
            trial["id"],
            message.device_id,
            problem,
            message.detail[:500],
        )
        await _ended_by_fault(desk, tx, trial, await stored.of(tx, trial["id"]))

    await desk.db.run(step)


async def _in_time(
    desk: Desk, tx: Tx, peer_id: str, message: TrialFilled | TrialAnswer, state: State, took_ms: int | None
) -> Row | None:
    """The trial, when this is the answer it waits for."""
    trial = await stored.open_of(tx, peer_id, message.trial_id)
    if trial is None or trial["state"] != state:
        return None
    if took_ms is None:
        await end(desk, tx, trial, Verdict(State.VOID, Why.SESSION, "the node's session was renewed in between"))
        return None
    return trial


async def _go_on(desk: Desk, tx: Tx, trial: Row, state: State, column: str, secret: bytes, limit_ms: int) -> None:
    assert column in ("seed", "key")
    await execute(
        tx,
        f"UPDATE trial SET state = $2, {column} = $3, due_ms = $4 WHERE id = $1",  # noqa: S608 - one of two names
        trial["id"],
        state.value,
        secret,
        desk.now_ms() + limit_ms + rules.GRACE_MS,
    )


async def _ended_by_fault(desk: Desk, tx: Tx, trial: Row, parts: Sequence[Part]) -> bool:
    found = rules.first_fault(parts, slack_ms(desk))
    if found is not None:
        await end(desk, tx, trial, found)
    return found is not None


async def end(desk: Desk, tx: Tx, trial: Row, verdict: Verdict) -> None:
    """Writes what was found, and what follows for the node's listings; the node hears of it."""
    now_ms, trial_id, peer_id = desk.now_ms(), trial["id"], trial["peer_id"]
    verdict = rules.with_voids(verdict, await _voids_before(tx, peer_id))
    for part in await stored.of(tx, trial_id):
        await execute(
            tx,
            "UPDATE trial_part SET gflops = $3, digests = NULL WHERE trial_id = $1 AND listing_id = $2",
            trial_id,
            part.claim.listing_id,
            rules.gflops(part),
        )
    await execute(
        tx,
        "UPDATE trial SET state = $2, reason = $3, detail = $4, ended_ms = $5 WHERE id = $1",
        trial_id,
        verdict.state.value,
        verdict.why.value,
        verdict.detail,
        now_ms,
    )
    await _prune(tx, peer_id)
    await standing.refresh(desk, tx, peer_id)
    await jobs.tell(tx, peer_id, _farewell(trial_id, verdict))
    log.info(
        "trial.ended",
        extra={"peer": peer_id, "verdict": verdict.state.value, "why": verdict.why.value, "detail": verdict.detail},
    )


def _farewell(trial_id: UUID, verdict: Verdict) -> Message:
    remedy = REMEDIES.get(verdict.why, "") if verdict.state is State.FAILED else ""
    return TrialEnd(trial_id=str(trial_id), verdict=verdict.state.value, detail=verdict.detail, remedy=remedy)


async def _voids_before(tx: Tx, peer_id: str) -> int:
    found = await rows(
        tx,
        "SELECT state FROM trial WHERE peer_id = $1 AND ended_ms IS NOT NULL AND reason <> $3"
        " ORDER BY asked_ms DESC LIMIT $2",
        peer_id,
        rules.VOIDS_MAX,
        Why.AWAY.value,
    )
    states = [row["state"] for row in found]
    return next((number for number, state in enumerate(states) if state != State.VOID), len(states))


_KEPT: Final = 50
"""Trials of one node."""


async def _prune(tx: Tx, peer_id: str) -> None:
    await execute(
        tx,
        "DELETE FROM trial WHERE id IN (SELECT id FROM trial WHERE peer_id = $1 AND ended_ms IS NOT NULL"
        " ORDER BY asked_ms DESC OFFSET $2)",
        peer_id,
        _KEPT,
    )
