# SPDX-License-Identifier: Apache-2.0
"""A market in one database, driven by hand: a consumer, providers that speak as nodes do, a clock that stands still."""

import hashlib
import itertools
import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.accounts.rules import Principal, Scope
from qubix_coordinator.artifacts import service as artifacts
from qubix_coordinator.artifacts.service import Quota
from qubix_coordinator.clock import FakeClock
from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.jobs import service as jobs
from qubix_coordinator.jobs import verify
from qubix_coordinator.jobs.desk import Desk
from qubix_coordinator.jobs.engine import Engine
from qubix_coordinator.jobs.tables import Attempt, Job
from qubix_coordinator.ledger import rules as ledger
from qubix_coordinator.ledger.read import balance_qu
from qubix_coordinator.market import service as market
from qubix_coordinator.outbox import events
from qubix_coordinator.outbox.rules import START
from qubix_coordinator.settings import Settings
from qubix_protocol import chain, digests, job_receipt
from qubix_protocol.api import InputBody, JobBody, JobView
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.envelope import seal
from qubix_protocol.job_receipt import JobProof
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import (
    Accept,
    Acknowledged,
    Beat,
    Decline,
    Device,
    Heartbeat,
    KernelRate,
    Link,
    Offer,
    Progress,
    Range,
    Report,
)
from qubix_protocol.states import Availability, DeviceKind, Outcome
from tests.support.funds import fund

GIB = 1024**3
UNITS = 100
"""Rows of the product that every job here asks for."""
FORECAST_MS = 10_000
RATE = 3_600_000
"""QU per hour: 1 QU a millisecond, 10,000 for a whole job, forecast up to 12,500."""
CAP = 50_000
FEE_BPS = 250
CREDIT = 1_000_000
METAS = {"a": ArrayMeta("float32", (UNITS, 8)), "b": ArrayMeta("float32", (8, 4))}
FLOPS = 2.0 * UNITS * 8 * 4


class CannotNow(Exception):
    """The hand that plays the node or the verifier has nothing to play."""


@dataclass
class Node:
    """One provider with one device, and what it did in its attempt in hand."""

    world: "World"
    key: SigningKey = field(default_factory=SigningKey.generate)
    links: list[Link] = field(default_factory=list)
    head: bytes = digests.ZERO

    @property
    def peer(self) -> str:
        return self.key.peer_id

    async def offer(self, **changes: Any) -> "Node":
        await self.world.db.run(lambda tx: accounts.ensure_node(tx, self.peer))
        plain: dict[str, Any] = {
            "device": Device(
                device_id="cpu-1", kind=DeviceKind.CPU, model="A CPU", memory_bytes=8 * GIB, backends=("cpu",)
            ),
            "rate_qu_per_h": RATE,
            "region": "local",
            "availability": Availability.AVAILABLE,
            "rates": (
                KernelRate(kernel="matmul", backend="cpu", flops_per_s=FLOPS / FORECAST_MS * 1000, bytes_per_s=1e12),
            ),
        }
        offer = Offer(**(plain | changes))
        await market.offer_received(self.world.db, self.peer, offer, b"offer", now_ms=self.world.desk.now_ms())
        return self

    async def attempt(self) -> Attempt:
        """Its newest one."""

        async def step(tx: Any) -> Attempt:
            found = await Attempt.filter(peer_id=self.peer).using_db(tx).order_by("-created_ms", "-fence").first()
            if found is None:
                raise CannotNow("it was never asked")
            return found

        return await self.world.db.run(step)

    async def accept(self) -> Attempt:
        attempt = await self.attempt()
        self.links, self.head = [], digests.ZERO
        await jobs.on_accept(self.world.desk, self.peer, Accept(attempt_id=str(attempt.id), fence=attempt.fence))
        return attempt

    async def decline(self) -> None:
        attempt = await self.attempt()
        message = Decline(attempt_id=str(attempt.id), fence=attempt.fence, reason="busy")
        await jobs.on_decline(self.world.desk, self.peer, message)

    async def beat(self, fraction: float = 0.0, attempt: Attempt | None = None) -> None:
        one = attempt or await self.attempt()
        beat = Beat(attempt_id=str(one.id), fence=one.fence, fraction=fraction, elapsed_ms=0)
        await jobs.on_heartbeat(self.world.desk, self.peer, Heartbeat(attempts=(beat,)))

    def next_link(self, start: int, stop: int, claimed_ms: int, content: bytes = b"") -> Link:
        output = content or f"{self.peer} [{start}, {stop})".encode()
        return Link(
            index=len(self.links),
            units=Range(start, stop),
            output_digest=hashlib.sha256(output).digest(),
            output_bytes=len(output),
            claimed_ms=claimed_ms,
            predecessor=self.head,
        )

    async def upload(self, link: Link, attempt: Attempt | None = None) -> None:
        one = attempt or await self.attempt()
        await self.world.store(link.output_digest, link.output_bytes, None, writer=str(one.id))

    async def send(self, link: Link, attempt: Attempt | None = None, fence: int | None = None) -> Acknowledged | None:
        one = attempt or await self.attempt()
        message = Progress(attempt_id=str(one.id), fence=fence or one.fence, fraction=0.0, elapsed_ms=0, link=link)
        raw = self.world.seal(self.key, message)
        return await jobs.on_progress(self.world.desk, self.peer, message, raw)

    async def work(self, start: int, stop: int, claimed_ms: int = 1_000, *, took_s: float = 1.0) -> Link:
        """One chunk: time passes, the output is uploaded, the link is sent and acknowledged."""
        await self.world.pass_time(took_s, step_s=took_s / max(1, math.ceil(took_s / 2.5)))
        link = self.next_link(start, stop, claimed_ms)
        await self.upload(link)
        answer = await self.send(link)
        assert answer is not None
        assert answer.link == link.index
        self.links.append(link)
        self.head = digests.of_link(link)
        return link

    async def report(
        self, outcome: Outcome = Outcome.COMPLETED, attempt: Attempt | None = None, **changes: Any
    ) -> Acknowledged:
        one = attempt or await self.attempt()
        job = await self.world.row(one.job_id)
        plain: dict[str, Any] = {
            "job_id": str(one.job_id),
            "attempt_id": str(one.id),
            "fence": one.fence,
            "outcome": outcome,
            "kernel": job.kernel,
            "params_digest": bytes(job.params_digest),
            "inputs_digest": bytes(job.inputs_digest),
            "links": len(self.links),
            "units_done": sum(link.units.units for link in self.links),
            "head": self.head,
            "claimed_ms": sum(link.claimed_ms for link in self.links),
            "started_ms": 0,
            "finished_ms": 1,
            "backend": one.backend,
            "device_id": one.device_id,
        }
        message = Report(**(plain | changes))
        raw = self.world.seal(self.key, message)
        return await jobs.on_report(self.world.desk, self.peer, message, raw)

    async def whole_job(self) -> None:
        await self.accept()
        for start in range(0, UNITS, 25):
            await self.work(start, start + 25, 2_500, took_s=2.5)
        await self.report()

    async def earned_qu(self) -> int:
        owner = await self.world.db.run(lambda tx: accounts.account_of_node(tx, self.peer))
        return await self.world.balance_qu(owner)


class World:
    def __init__(self, db: Database) -> None:
        self.db, self.clock, self.key = db, FakeClock(), SigningKey.generate()
        settings = Settings(data_dir=Path("/nonexistent"), fee_bps=FEE_BPS, lease_s=10.0, heartbeat_s=2.0)
        self.desk = Desk(db, settings, self.clock, self.key, "devnet")
        self.engine = Engine(self.desk)
        self.consumer = Principal(uuid.uuid4(), frozenset({Scope.USER}))
        self.numbers = itertools.count(1)

    async def open(self, credit_qu: int = CREDIT) -> "World":
        await self.db.run(lambda tx: accounts.create_account(tx, "consumer", account_id=self.consumer.account_id))
        await fund(self.db, self.consumer.account_id, credit_qu)
        for name, meta in METAS.items():
            await self.store(*self.input_of(name, meta), meta)
        return self

    @staticmethod
    def input_of(name: str, meta: ArrayMeta) -> tuple[bytes, int]:
        return hashlib.sha256(name.encode()).digest(), meta.nbytes + 128

    async def store(self, digest: bytes, size: int, meta: ArrayMeta | None, *, writer: str | None = None) -> None:
        """`writer` is the attempt that sent it; None for the consumer."""
        owner = self.consumer.account_id

        async def step(tx: Any) -> None:
            if writer is None:
                await artifacts.announce(tx, owner, digest, size, Quota(bytes_max=2**40, artifacts_max=1000))
            else:
                await artifacts.announce_output(tx, owner, digest, size, writer)
            await artifacts.mark_stored(tx, owner, digest, size, meta, writer=writer)

        await self.db.run(step)

    async def node(self, **changes: Any) -> Node:
        return await Node(self).offer(**changes)

    def body(self, **changes: Any) -> JobBody:
        inputs = {}
        for name, meta in METAS.items():
            digest, size = self.input_of(name, meta)
            inputs[name] = InputBody(digest=digest.hex(), size_bytes=size, meta=meta)
        plain: dict[str, Any] = {"kernel": "matmul", "inputs": inputs, "cap_qu": CAP, "spread": 1}
        return JobBody(**(plain | changes))

    async def submit(self, **changes: Any) -> JobView:
        return await jobs.submit(self.desk, self.consumer, self.body(**changes), f"key-{next(self.numbers)}")

    async def assigned(self, **changes: Any) -> JobView:
        view = await self.submit(**changes)
        await self.engine.tick()
        return view

    async def job(self, job_id: str) -> JobView:
        return await jobs.get(self.desk, self.consumer, job_id)

    async def row(self, job_id: UUID) -> Any:
        return await self.db.run(lambda tx: Job.filter(id=job_id).using_db(tx).get())

    async def cancel(self, job_id: str) -> JobView:
        return await jobs.cancel(self.desk, self.consumer, job_id)

    async def check(self, parts: Sequence[bool] | None = None, *, carried_out: bool = True) -> verify.Claim:
        """The verifier's turn: one waiting attempt gets this verdict (all good by default), which is then applied."""
        claim = await self.db.run(lambda tx: verify.claim(tx, "verifier", self.desk.now_ms()))
        if claim is None:
            raise CannotNow("nothing waits for a check")
        judged = tuple(parts) if parts is not None else (True,) * len(claim.outputs)
        finding = verify.Finding(
            carried_out=carried_out,
            accepted=carried_out and all(judged),
            reason="ok" if all(judged) else "residual",
            detail="",
            parts=judged if carried_out else (),
            seed=bytes(32),
            check_ms=7,
        )
        await self.db.run(lambda tx: verify.record(tx, claim.attempt_id, "verifier", finding, self.desk.now_ms()))
        await self.engine.tick()
        return claim

    async def pass_time(self, seconds: float, *, step_s: float = 1.0) -> None:
        """A coordinator runs all the while; this one's turn comes every `step_s`."""
        for _ in range(round(seconds / step_s) if seconds else 0):
            self.clock.advance(step_s)
            await self.db.run(lambda tx: execute(tx, "UPDATE engine_clock SET ticked_ms = $1", self.desk.now_ms()))
            await self.engine.tick()

    async def balance_qu(self, account_id: UUID) -> int:
        return await self.db.run(lambda tx: balance_qu(tx, ledger.user(account_id)))

    async def commands(self, node: Node) -> list[dict[str, Any]]:
        return [event.payload for event in await events.read(self.db, START, [f"node:{node.peer}"])]

    def seal(self, key: SigningKey, message: Any) -> bytes:
        return seal(
            message,
            key,
            network="devnet",
            audience=self.key.public,
            incarnation=1,
            counter=next(self.numbers),
            expires_ms=self.desk.now_ms() + 60_000,
        )

    async def check_money(self) -> None:
        """I4, I5: every job's hold is accounted for, in the job's row and in the ledger alike."""
        for row in await self.db.fetch(
            "SELECT j.id, j.cap_qu, j.paid_qu, j.fee_qu, j.returned_qu, j.ended_ms, h.held_qu, h.paid_qu AS h_paid,"
            " h.fees_qu AS h_fees, h.returned_qu AS h_returned, h.closed_at"
            " FROM job j LEFT JOIN hold h ON h.job_id = j.id"
        ):
            assert (row["cap_qu"], row["paid_qu"], row["fee_qu"], row["returned_qu"]) == (
                row["held_qu"],
                row["h_paid"],
                row["h_fees"],
                row["h_returned"],
            )
            spent = row["paid_qu"] + row["fee_qu"] + row["returned_qu"]
            assert spent == row["cap_qu"] if row["ended_ms"] else spent <= row["cap_qu"]
            assert (row["closed_at"] is not None) == (row["ended_ms"] is not None)
            await self._check_receipt(row)

    async def _check_receipt(self, row: dict[str, Any]) -> None:
        """Every job's receipt holds by itself, and says of the money what the ledger says."""
        proof = await self.proof(str(row["id"]))
        left_qu = 0 if proof.closed else row["cap_qu"] - row["paid_qu"] - row["fee_qu"]
        assert (proof.opened.hold_qu, proof.paid_qu, proof.fee_qu) == (row["held_qu"], row["h_paid"], row["h_fees"])
        assert (proof.closed is not None) == (row["ended_ms"] is not None)
        assert proof.hold_left_qu == row["h_returned"] + left_qu

    async def receipt(self, job_id: str) -> bytes:
        return (await jobs.receipt(self.desk, self.consumer, job_id)).receipt.encode()

    async def proof(self, job_id: str) -> JobProof:
        return job_receipt.prove(*chain.from_file(await self.receipt(job_id)), coordinator_keys=[self.key.public])
