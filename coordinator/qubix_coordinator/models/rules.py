# SPDX-License-Identifier: Apache-2.0
"""What may be asked about models and how often, and what a worker's last words mean. Pure."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from qubix_kernels.onnx import signature
from qubix_kernels.onnx.frames import DescribeDone
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.models import ModelBody, ModelCard, ModelRefusal, ModelState, ModelWork

WAIT_MS: Final = 60_000
"""So long a question waits for a verifier process."""
SLACK_MS: Final = 30_000
"""Beside the trial's own deadline, for fetching the model."""
OPEN_MAX: Final = 4
"""Questions of one account that wait at a time."""
ALL_OPEN_MAX: Final = 400
HOUR_MS: Final = 3_600_000
HOURLY_MAX: Final = 120
"""Questions of one account that cost a trial, in an hour."""
KEPT_MAX: Final = 200
"""Answers of one account; the newest."""
KEPT_MS: Final = 7 * 24 * HOUR_MS
DATA_BYTES_MAX: Final = 64 * 1024**2
"""Of one input that a trial reads; a larger one is tried as zeros of its form."""
Why = Literal["busy", "crowded", "often"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """As the database keeps it."""

    card: ModelCard | None = None
    work: ModelWork | None = None
    refusal: ModelRefusal | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    state: ModelState
    answer: Answer
    took_ms: int = 0


def asked(body: ModelBody) -> bytes:
    """The same question has the same digest, in whatever order its inputs were named."""
    return hashlib.sha256(msgspec.json.encode(body, order="deterministic")).digest()


def refused_for(*, open_here: int, open_all: int, lately: int) -> Why | None:
    """Why one more question cannot be taken now."""
    if open_here >= OPEN_MAX:
        return "busy"
    if open_all >= ALL_OPEN_MAX:
        return "crowded"
    return "often" if lately >= HOURLY_MAX else None


def read_whole(size_bytes: int) -> bool:
    return size_bytes <= DATA_BYTES_MAX


def _plain(said: str, longest: int) -> str:
    """Of what a worker or an error about it says: nothing that a database or a terminal takes for more than text."""
    return re.sub(r"[^\x20-\x7e]+", " ", said)[:longest]


def failed(why: str) -> Outcome:
    """Nothing was found out about the model."""
    remedy = "Ask again; tell the operator if it stays"
    refusal = ModelRefusal(code="not_described", problem=_plain(why, 900), remedy=remedy)
    return Outcome(ModelState.FAILED, Answer(refusal=refusal))


def refused(code: str, problem: str, remedy: str) -> Outcome:
    return Outcome(ModelState.REFUSED, Answer(refusal=ModelRefusal(code=code, problem=problem, remedy=remedy)))


def unfinished(cause: str, status: int | None, deadline_s: float, memory_bytes: int) -> Outcome:
    """Of a worker that ended without an answer: it was ended for a limit, or ended itself."""
    if cause in ("time", "processor"):
        return refused(
            "too_slow",
            f"reading the model and running two units of it took longer than {deadline_s:g} s",
            "give smaller units (shorter sequences, smaller images); loops must end by themselves",
        )
    if cause == "memory":
        return out_of_memory(memory_bytes)
    if cause:
        return refused("too_much_work", f"a unit of the model needs too much of this: {cause}", "give smaller units")
    how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
    return refused(
        "crashed",
        f"the runtime ended on this model ({how}): it asks for more memory than there is, or its file is broken",
        "onnx.checker.check_model(model, full_check=True) finds most causes; export it anew, or give smaller units",
    )


def broken(detail: str) -> Outcome:
    """Of an error that is in no list: the libraries met something in the file that they did not expect."""
    said = _plain(detail, 500)
    return refused(
        "crashed", f"the model cannot be read: {said}", "onnx.checker.check_model(model) may say more; export it anew"
    )


def out_of_memory(memory_bytes: int) -> Outcome:
    return refused(
        "out_of_memory",
        f"the model needs more than the {memory_bytes / 1024**3:.1f} GiB that one unit of it may take here",
        "give smaller units, or a smaller model",
    )


def outcome(done: DescribeDone, body: ModelBody, *, zeros: bool) -> Outcome:
    """Of what a worker said: it ran a stranger's model, and is believed no further than this."""
    took_ms = round(done.run_ms)
    if done.signature:
        try:
            found = signature.decode(done.signature)
        except ValueError as error:
            return failed(f"the description cannot be read: it {error}")
        work = work_of(found, done.signature, body, zeros=zeros)
        return Outcome(ModelState.DESCRIBED, Answer(card=done.card, work=work), took_ms)
    answer = Answer(card=done.card, refusal=done.refusal, needs=done.needs)
    if done.needs:
        return Outcome(ModelState.DECLARED, answer, took_ms)
    if done.refusal is None:
        return failed("the worker said neither what the model is nor why not")
    return Outcome(ModelState.REFUSED, answer, took_ms)


def work_of(found: signature.Signature, text: str, body: ModelBody, *, zeros: bool) -> ModelWork:
    units = _units(found, {name: one.meta for name, one in body.inputs.items()})
    return ModelWork(
        signature=text,
        mode=found.mode,
        flops=found.flops,
        bytes_moved=found.bytes_moved,
        memory_bytes=found.memory_bytes,
        batch=found.batch,
        units=units,
        checked_units=found.sample(units) if units else 0,
        zeros=zeros,
    )


def _units(found: signature.Signature, given: Mapping[str, ArrayMeta]) -> int:
    """Of the inputs as they were asked about, by either name; 0 when there were none."""
    for wire, tensor in found.inputs.items():
        form = given.get(tensor.name) or given.get(wire)
        if form is not None and form.shape and not tensor.whole:
            return form.shape[0]
    return 0
