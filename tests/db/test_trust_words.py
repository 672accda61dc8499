# SPDX-License-Identifier: Apache-2.0
"""Statements that are well formed and at their most extreme: refused or stored, never a fault of the coordinator's."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from qubix_coordinator.db.database import Database
from qubix_protocol import codec
from qubix_protocol.errors import Malformed
from qubix_protocol.link import Gossip
from qubix_protocol.messages import (
    Decline,
    Device,
    DeviceSample,
    KernelRate,
    Offer,
    Sample,
    Telemetry,
)
from qubix_protocol.states import Availability, DeviceKind
from tests.db.support_http import assembled, make_person, some_array
from tests.db.test_artifacts_http import put
from tests.db.test_http_api import ask, problem
from tests.db.test_mesh_link import ATTEMPT, Node, market, until
from tests.db.test_trust_mesh import counted

pytestmark = pytest.mark.asyncio
MOST = 2**53


def extreme_offer(**changes: Any) -> Offer:
    device = Device(
        device_id="d" * 200,
        kind=DeviceKind.CUDA,
        model="\U0010ffff" * 200,
        memory_bytes=MOST,
        cores=MOST,
        backends=("cpu",) * 8,
    )
    sample = Sample(
        at_ms=MOST,
        utilisation_pct=5e-324,
        memory_used_bytes=MOST,
        memory_total_bytes=MOST,
        temperature_c=-100.0,
        power_mw=MOST,
        clock_mhz=MOST,
        throttle=("t" * 64,) * 16,
        foreign_memory_bytes=MOST,
        xid=MOST,
    )
    rates = tuple(
        KernelRate(kernel="k", backend="cpu", flops_per_s=flops, bytes_per_s=5e-324) for flops in (-0.0, 5e-324, 1e21)
    )
    plain: dict[str, Any] = {
        "device": device,
        "rate_qu_per_h": 10**12,
        "region": "r" * 200,
        "availability": Availability.AVAILABLE,
        "rates": rates,
        "metrics": sample,
        "jobs_parallel": 64,
    }
    return Offer(**(plain | changes))


async def test_the_most_extreme_statements_end_no_session(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    async with market(db, tmp_path) as (running, gateway):
        node = Node(gateway)
        await node.shake_hands()
        raw = node.advert(extreme_offer(region="local"))
        await gateway.send(Gossip(author=node.peer_id, topic="t", data=raw))
        offer = extreme_offer()
        sample = msgspec.structs.replace(offer.metrics, at_ms=running.coordinator.context.now_ms())  # type: ignore[type-var]
        await node.say(
            node.seal(Telemetry(samples=(DeviceSample(device_id="d" * 200, sample=sample),) * 2)),  # type: ignore[arg-type]
            node.seal(Decline(attempt_id=ATTEMPT, fence=MOST, reason="r" * 200, detail="d" * 2000)),
        )
        await until(lambda: counted(running, "not_found", 1))

        async def shown() -> bool:
            async with running.client(person) as client:
                found = (await client.get("/api/v1/offers")).json()["offers"]
            return bool(found) and found[0]["cores"] == MOST

        await until(shown)
        assert not await counted(running, "internal", 1)
        assert running.coordinator.context.mesh.reachable(node.peer_id)


@pytest.mark.parametrize("field", ["reason", "detail"])
async def test_text_that_no_database_can_hold_is_refused_on_the_wire(db: Database, tmp_path: Path, field: str) -> None:
    """PostgreSQL's text has no NUL: what cannot be stored must be the sender's mistake, not a fault here."""
    async with market(db, tmp_path) as (running, gateway):
        node = Node(gateway)
        await node.shake_hands()
        await node.say(node.seal(Decline(**{"attempt_id": ATTEMPT, "fence": 1, "reason": "x", field: "a\0b"})))
        await until(lambda: counted(running, "malformed", 1))
        assert running.coordinator.context.mesh.reachable(node.peer_id)


async def test_a_name_with_a_line_break_at_its_end_is_no_name() -> None:
    rate = KernelRate(kernel="matmul\n", backend="cpu", flops_per_s=1.0, bytes_per_s=1.0)
    with pytest.raises(Malformed, match="kernel"):
        codec.convert(msgspec.to_builtins(rate), KernelRate)


async def test_a_job_for_an_impossible_provider_is_told_by_field(db: Database, tmp_path: Path) -> None:
    data, person = some_array(), await make_person(db)
    client = (await assembled(db, tmp_path)).app.test_client()
    await put(client, data, person)
    body = {"kernel": "matmul", "inputs": {}, "cap_qu": 1, "provider": "a\0b"}
    answer = await ask(client, "POST", "/api/v1/jobs", person, json=body, headers={"Idempotency-Key": "k"})
    await problem(answer, 422, "invalid_input", "provider")
