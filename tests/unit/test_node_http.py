# SPDX-License-Identifier: Apache-2.0
"""What the node does over HTTP: enrolment, inputs that resume, outputs that resume."""

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from qubix_node.clock import wall_ms
from qubix_node.enrol import Enroller
from qubix_node.errors import (
    CoordinatorChanged,
    EnrolmentRefused,
    OtherNetwork,
    StoreRefused,
    StoreUnavailable,
    WrongContent,
)
from qubix_node.gpu import cpu
from qubix_node.jobs.store import Artifact
from qubix_node.jobs.store_http import HttpStore
from qubix_protocol.envelope import Sealer
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import ArtifactRequest
from tests.support.fake_http import FakeHttp, serve_http

pytestmark = pytest.mark.trio
NODE, COORDINATOR, OTHER = SigningKey(b"n" * 32), SigningKey(b"c" * 32), SigningKey(b"o" * 32)
DATA = bytes(range(256)) * 12_000
ATTEMPT = "00000000-0000-0000-0000-000000000001"


def artifact(data: bytes = DATA) -> Artifact:
    return Artifact(digest=hashlib.sha256(data).digest(), size_bytes=len(data), attempt_id=ATTEMPT, fence=3)


@asynccontextmanager
async def opened(state: FakeHttp, *, patience_s: float = 30.0) -> AsyncIterator[HttpStore]:
    sealer = Sealer(NODE, network="devnet", audience=COORDINATOR.public, incarnation=1, clock_ms=wall_ms)

    with serve_http(state) as url:

        async def authorise(request: ArtifactRequest) -> tuple[str, str]:
            await trio.lowlevel.checkpoint()
            return f"{url}/api/v1/artifacts", f"Qubix {base64.b64encode(sealer.seal(request)).decode()}"

        async with httpx.AsyncClient(trust_env=False) as client:
            yield HttpStore(client, authorise, patience_s=patience_s)


async def test_a_fetch_is_signed_for_its_attempt_and_checked(tmp_path: Path) -> None:
    state = FakeHttp(COORDINATOR)
    state.artifacts[artifact().digest.hex()] = DATA
    async with opened(state) as store:
        await store.fetch(artifact(), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    (request,) = state.passes
    assert (request.method, request.attempt_id, request.fence, request.size_bytes) == ("GET", ATTEMPT, 3, len(DATA))


@pytest.mark.parametrize("ignore_range", [False, True])
async def test_a_broken_fetch_goes_on_where_it_stopped(tmp_path: Path, ignore_range: bool) -> None:
    state = FakeHttp(COORDINATOR)
    state.artifacts[artifact().digest.hex()] = DATA
    state.cut_after, state.cuts, state.ignore_range = 1_200_000, 2, ignore_range
    async with opened(state) as store:
        await store.fetch(artifact(), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert state.cuts == 0


async def test_faults_that_may_pass_are_waited_out(tmp_path: Path) -> None:
    state = FakeHttp(COORDINATOR)
    state.artifacts[artifact().digest.hex()] = DATA
    state.statuses = [503, 401, 429]
    async with opened(state) as store:
        await store.fetch(artifact(), tmp_path / "x")
    assert len(state.requests) == 4


async def test_a_store_that_stays_away_is_given_up_on(tmp_path: Path) -> None:
    state = FakeHttp(COORDINATOR)
    state.statuses = [503] * 100
    async with opened(state, patience_s=0.2) as store:
        with pytest.raises(StoreUnavailable):
            await store.fetch(artifact(), tmp_path / "x")


async def test_a_refusal_is_final(tmp_path: Path) -> None:
    state = FakeHttp(COORDINATOR)
    async with opened(state) as store:
        with pytest.raises(StoreRefused):
            await store.fetch(artifact(), tmp_path / "x")
    assert len(state.requests) == 1


@pytest.mark.parametrize("wrong", [bytes(len(DATA)), DATA + b"more"])
async def test_wrong_bytes_are_refused_and_not_kept(tmp_path: Path, wrong: bytes) -> None:
    state = FakeHttp(COORDINATOR)
    state.artifacts[artifact().digest.hex()] = wrong
    async with opened(state) as store:
        with pytest.raises(WrongContent):
            await store.fetch(artifact(), tmp_path / "x")
    assert not (tmp_path / "x").exists()


async def test_an_upload_arrives_in_one_request(tmp_path: Path) -> None:
    state = FakeHttp(COORDINATOR)
    (tmp_path / "x").write_bytes(DATA)
    async with opened(state) as store:
        await store.put(artifact(), tmp_path / "x")
    assert state.artifacts[artifact().digest.hex()] == DATA
    assert [request.split()[0] for request in state.requests] == ["PUT"]


async def test_a_broken_upload_asks_where_to_go_on(tmp_path: Path) -> None:
    state = FakeHttp(COORDINATOR)
    state.cut_after, state.cuts = 1_000_000, 2
    (tmp_path / "x").write_bytes(DATA)
    async with opened(state) as store:
        await store.put(artifact(), tmp_path / "x")
    assert state.artifacts[artifact().digest.hex()] == DATA
    assert [request.split()[0] for request in state.requests] == ["PUT", "HEAD", "PUT", "HEAD", "PUT"]


async def test_a_large_upload_goes_in_parts(tmp_path: Path) -> None:
    data = DATA * 4
    state = FakeHttp(COORDINATOR)
    (tmp_path / "x").write_bytes(data)
    async with opened(state) as store:
        await store.put(artifact(data), tmp_path / "x")
    assert state.artifacts[artifact(data).digest.hex()] == data
    assert len(state.requests) == 3, "of at most 4 MiB each"


async def test_an_upload_that_the_store_refuses_is_not_repeated(tmp_path: Path) -> None:
    state = FakeHttp(COORDINATOR)
    (tmp_path / "x").write_bytes(bytes(len(DATA)))
    async with opened(state) as store:
        with pytest.raises(StoreRefused):
            await store.put(artifact(), tmp_path / "x")


# Enrolment ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def enroller(state: FakeHttp, folder: Path, network: str = "devnet") -> AsyncIterator[Enroller]:
    with serve_http(state) as url:
        async with httpx.AsyncClient(trust_env=False) as client:
            yield Enroller(client, url, NODE, cpu.host("test"), network, folder / "enrolment.json")  # type: ignore[arg-type]


async def test_enrolling_pins_the_coordinator(tmp_path: Path) -> None:
    state = FakeHttp(COORDINATOR)
    state.gateways = ("/ip4/127.0.0.1/tcp/1/p2p/x",)
    async with enroller(state, tmp_path) as enrol:
        first = await enrol.enrolled()
        again = await enrol.enrolled()
    assert first == again
    assert (first.key, first.region, first.gateways) == (COORDINATOR.public, "here", state.gateways)
    assert len(state.enrolled) == 1, "once"


async def test_it_waits_for_a_coordinator_that_is_not_up_yet(tmp_path: Path) -> None:
    state = FakeHttp(COORDINATOR)
    state.statuses = [503, 502]
    async with enroller(state, tmp_path) as enrol:
        await enrol.enrolled()
    assert len(state.enrolled) == 1


async def test_another_coordinator_is_refused_with_the_remedy(tmp_path: Path) -> None:
    async with enroller(FakeHttp(COORDINATOR), tmp_path) as enrol:
        await enrol.enrolled()
    async with enroller(FakeHttp(OTHER), tmp_path) as enrol:
        with pytest.raises(CoordinatorChanged, match=r"delete .*enrolment\.json"):
            await enrol.enrolled()


async def test_another_network_is_refused_with_the_remedy(tmp_path: Path) -> None:
    async with enroller(FakeHttp(COORDINATOR, "test"), tmp_path) as enrol:
        with pytest.raises(OtherNetwork, match="QUBIX_NETWORK=test"):
            await enrol.enrolled()


async def test_a_known_coordinator_that_is_away_does_not_stop_the_node(tmp_path: Path) -> None:
    state = FakeHttp(COORDINATOR)
    async with enroller(state, tmp_path) as enrol:
        known = await enrol.enrolled()
        state.statuses = [503]
        assert await enrol.enrolled() == known


async def test_a_refusal_carries_the_remedy(tmp_path: Path) -> None:
    state = FakeHttp(COORDINATOR)
    state.statuses = [403]
    async with enroller(state, tmp_path) as enrol:
        with pytest.raises(EnrolmentRefused, match="do something else"):
            await enrol.enrolled()
