# SPDX-License-Identifier: Apache-2.0
"""Questions about models: asked by accounts, claimed and answered by verifier processes, given up when they are due.

No coordinator opens a model: a question is a row, and what answers it runs in a verifier's box (trust B1, C3).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

import msgspec

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.artifacts import service as artifacts
from qubix_coordinator.artifacts.service import Artifact
from qubix_coordinator.db.database import Row, Tx, execute, one, rows, value
from qubix_coordinator.errors import InvalidInput, LimitExceeded, NotFound
from qubix_coordinator.models import rules
from qubix_coordinator.models.rules import Answer, Outcome
from qubix_coordinator.outbox import events
from qubix_kernels.onnx.spec import SPEC
from qubix_protocol.errors import Malformed
from qubix_protocol.models import ModelBody, ModelState, ModelView

_SWEPT_MAX: Final = 1_000
_MODEL: Final = SPEC.inputs[0]
_LIMITS: Final = {
    "busy": ("questions of yours about models wait already", "Read their answers first", 5.0),
    "crowded": ("too many models wait to be described", "Try again in a minute", 60.0),
    "often": (f"{rules.HOURLY_MAX} models were described for this account within an hour", "Try again later", 600.0),
}


@dataclass(frozen=True, slots=True)
class Question:
    """Claimed: what a description needs. `data`: inputs whose values are read."""

    id: UUID
    account_id: UUID
    body: ModelBody
    model_bytes: int
    data: Mapping[str, Artifact]


def topic(model_id: UUID) -> str:
    return f"model:{model_id}"


async def ask(tx: Tx, account_id: UUID, body: ModelBody, *, now_ms: int) -> ModelView:
    """What is known already is answered at once, and counts for nothing. Raises NotFound (no such artifact of the
    account), InvalidInput, LimitExceeded."""
    await _artifacts_of(tx, account_id, body)
    await accounts.lock_account(tx, account_id)
    asked = rules.asked(body)
    row = await one(tx, "SELECT * FROM model_description WHERE account_id = $1 AND asked = $2", account_id, asked)
    if row is not None and row["state"] != ModelState.FAILED and not _overdue(row, now_ms):
        return _view(row)
    await _check_limits(tx, account_id, now_ms)
    found = await one(
        tx,
        "INSERT INTO model_description (id, account_id, digest, question, asked, state, asked_ms, due_ms)"
        " VALUES ($1, $2, $3, $4::text::jsonb, $5, 'waiting', $6, $7) ON CONFLICT (account_id, asked) DO UPDATE SET"
        " state = 'waiting', asked_ms = $6, due_ms = $7, claimed_by = NULL, answer = NULL, took_ms = 0 RETURNING *",
        uuid4(),
        account_id,
        bytes.fromhex(body.digest),
        msgspec.json.encode(body).decode(),
        asked,
        now_ms,
        now_ms + rules.WAIT_MS,
    )
    assert found is not None
    await execute(
        tx,
        "DELETE FROM model_description WHERE id IN (SELECT id FROM model_description WHERE account_id = $1"
        " AND state <> 'waiting' ORDER BY asked_ms DESC, id OFFSET $2)",
        account_id,
        rules.KEPT_MAX,
    )
    return _view(found)


async def _check_limits(tx: Tx, account_id: UUID, now_ms: int) -> None:
    counted = await one(
        tx,
        "SELECT count(*) FILTER (WHERE state = 'waiting' AND due_ms > $2) AS open, count(*) AS lately"
        " FROM model_description WHERE account_id = $1 AND asked_ms > $3",
        account_id,
        now_ms,
        now_ms - rules.HOUR_MS,
    )
    everybody = await value(tx, "SELECT count(*) FROM model_description WHERE state = 'waiting'")
    assert counted is not None
    why = rules.refused_for(open_here=counted["open"], open_all=everybody, lately=counted["lately"])
    if why is not None:
        problem, remedy, wait_s = _LIMITS[why]
        raise LimitExceeded(problem, field="digest", remedy=remedy, retry_after_s=wait_s)


async def _artifacts_of(tx: Tx, account_id: UUID, body: ModelBody) -> tuple[Artifact, dict[str, Artifact]]:
    """The model's, and those of the inputs that were uploaded."""
    _check_forms(body)
    wanted = {name: bytes.fromhex(one.digest) for name, one in body.inputs.items() if one.digest is not None}
    found = await artifacts.find_many(tx, account_id, {bytes.fromhex(body.digest), *wanted.values()})
    usable = {digest: artifact for digest, artifact in found.items() if artifact.usable}
    model = usable.get(bytes.fromhex(body.digest))
    if model is None:
        raise NotFound("there is no such artifact of yours", field="digest", remedy="Upload the model first")
    _check_model(model)
    for name, digest in wanted.items():
        if digest not in usable or usable[digest].meta != body.inputs[name].meta:
            raise InvalidInput(
                f"inputs.{name}.digest"[:200],
                "no artifact of yours has this digest and this form",
                "Upload the .npy file first, or give its form alone",
            )
    return model, {name: usable[digest] for name, digest in wanted.items()}


def _check_forms(body: ModelBody) -> None:
    for name, given in body.inputs.items():
        try:
            given.meta.check()
        except Malformed as error:
            raise InvalidInput(f"inputs.{name}.meta"[:200], str(error), "Give the form of an array") from None


def _check_model(model: Artifact) -> None:
    meta, largest = model.meta, _MODEL.size_max
    if meta is None or meta.dtype not in _MODEL.dtypes or len(meta.shape) != 1:
        raise InvalidInput(
            "digest",
            "this artifact is no model as a job takes it",
            "Upload the .onnx file's bytes as a .npy file of uint8, one axis: numpy.save(file, numpy.frombuffer(…))",
        )
    if meta.size > largest:
        raise InvalidInput(
            "digest",
            f"the model has {meta.size} bytes; at most {largest} are run",
            "Store weights as float16, or divide the model",
        )


async def read(tx: Tx, account_id: UUID, model_id: UUID, *, now_ms: int) -> ModelView:
    """Raises NotFound, also for somebody else's. One that is due is given up here."""
    row = await one(
        tx, "SELECT * FROM model_description WHERE id = $1 AND account_id = $2 FOR UPDATE", model_id, account_id
    )
    if row is None:
        raise NotFound("there is no such description of yours", field="model_id", remedy="Ask with POST /models")
    return await _give_up(tx, row) if _overdue(row, now_ms) else _view(row)


async def claim(tx: Tx, verifier: str, deadline_s: float, now_ms: int) -> Question | None:
    """The one that has waited longest. Nobody else gets it: what ends its verifier is not given to the next."""
    row = await one(
        tx,
        "UPDATE model_description SET claimed_by = $2, due_ms = $3 WHERE id = (SELECT id FROM model_description"
        " WHERE state = 'waiting' AND claimed_by IS NULL AND due_ms > $1 ORDER BY asked_ms LIMIT 1"
        " FOR UPDATE SKIP LOCKED) RETURNING *",
        now_ms,
        verifier[:300],
        now_ms + round(deadline_s * 1000) + rules.SLACK_MS,
    )
    if row is None:
        return None
    body = msgspec.json.decode(row["question"], type=ModelBody)
    try:
        model, data = await _artifacts_of(tx, row["account_id"], body)
    except (NotFound, InvalidInput):
        await _end(tx, row["id"], rules.failed("what was asked about is not here any more"))
        return None
    return Question(row["id"], row["account_id"], body, model.size_bytes, data)


async def record(tx: Tx, question: Question, verifier: str, found: Outcome) -> bool:
    """False when it no longer waits for this verifier's answer."""
    held = await value(
        tx,
        "SELECT true FROM model_description WHERE id = $1 AND claimed_by = $2 AND state = 'waiting' FOR UPDATE",
        question.id,
        verifier[:300],
    )
    if held:
        await _end(tx, question.id, found)
    return bool(held)


async def sweep(tx: Tx, *, now_ms: int) -> int:
    """Gives up what is due, and forgets old answers. Gives how many were given up."""
    due = await rows(
        tx,
        "SELECT * FROM model_description WHERE state = 'waiting' AND due_ms <= $1 ORDER BY due_ms LIMIT $2"
        " FOR UPDATE SKIP LOCKED",
        now_ms,
        _SWEPT_MAX,
    )
    for row in due:
        await _give_up(tx, row)
    await execute(
        tx, "DELETE FROM model_description WHERE state <> 'waiting' AND asked_ms < $1", now_ms - rules.KEPT_MS
    )
    return len(due)


async def _give_up(tx: Tx, row: Row) -> ModelView:
    why = "the verifier process did not answer" if row["claimed_by"] else "no verifier process was free in time"
    return await _end(tx, row["id"], rules.failed(why))


async def _end(tx: Tx, model_id: UUID, found: Outcome) -> ModelView:
    row = await one(
        tx,
        "UPDATE model_description SET state = $2, answer = $3::text::jsonb, took_ms = $4 WHERE id = $1 RETURNING *",
        model_id,
        str(found.state),
        msgspec.json.encode(found.answer).decode(),
        found.took_ms,
    )
    assert row is not None
    view = _view(row)
    await events.emit(tx, topic(model_id), msgspec.to_builtins(view))
    return view


def _overdue(row: Row, now_ms: int) -> bool:
    return bool(row["state"] == ModelState.WAITING and row["due_ms"] <= now_ms)


def _view(row: Row) -> ModelView:
    answer = Answer() if row["answer"] is None else msgspec.convert(json.loads(row["answer"]), Answer)
    return ModelView(
        model_id=str(row["id"]),
        digest=bytes(row["digest"]).hex(),
        state=ModelState(row["state"]),
        card=answer.card,
        work=answer.work,
        refusal=answer.refusal,
        needs=answer.needs,
        asked_ms=row["asked_ms"],
        due_ms=row["due_ms"],
        took_ms=row["took_ms"],
    )
