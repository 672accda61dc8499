# SPDX-License-Identifier: Apache-2.0
"""Artifacts over HTTP and a real server: resumed uploads, ranges, corrupt content, other accounts, bytes at rest."""

import asyncio
import base64
import gc
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from qubix_coordinator.accounts import service as accounts
from qubix_coordinator.artifacts import service
from qubix_coordinator.artifacts.service import Quota
from qubix_coordinator.artifacts.staging import OWNER
from qubix_coordinator.artifacts.uploads import Uploads
from qubix_coordinator.db.database import Database, execute
from qubix_coordinator.errors import LimitExceeded, Unavailable
from qubix_protocol import envelope
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import ArtifactRequest
from tests.db.support_http import Person, Running, assembled, make_person, served, sha, some_array

pytestmark = pytest.mark.asyncio
BIG = 700_000
"""Values of a `.npy` file of 2.8 MB: three segments at rest."""


def part(data: bytes, first: int, stop: int) -> dict[str, Any]:
    return {
        "content": data[first:stop],
        "headers": {"Content-Range": f"bytes {first}-{min(stop, len(data)) - 1}/{len(data)}"},
    }


async def put(client: Any, data: bytes, person: Person, **headers: str) -> Any:
    """Quart's client sends no Content-Length by itself."""
    length = {"Content-Length": str(len(data))}
    return await client.put(
        f"/api/v1/artifacts/{sha(data)}", data=data, headers={**person.headers, **length, **headers}
    )


async def upload(client: httpx.AsyncClient, data: bytes) -> httpx.Response:
    return await client.put(f"/api/v1/artifacts/{sha(data)}", content=data)


async def test_upload_in_parts_resume_and_read_back(db: Database, tmp_path: Path) -> None:
    data, person = some_array(BIG), await make_person(db)
    path, half = f"/api/v1/artifacts/{sha(data)}", 1_500_000
    async with served(db, tmp_path) as running, running.client(person) as client:
        assert (await client.head(path)).status_code == 404
        told = (await client.post("/api/v1/artifacts", json={"digest": sha(data), "size_bytes": len(data)})).json()
        assert told == {"digest": sha(data), "size_bytes": len(data), "offset": 0, "complete": False}
        assert (await client.put(path, **part(data, 0, half))).json()["offset"] == half
        assert (await client.get(path)).status_code == 404

        wrong = await client.put(path, **part(data, 10, half))
        assert wrong.status_code == 409
        assert wrong.headers["Upload-Offset"] == str(half)
        assert wrong.json()["field"] == "Content-Range"
        assert str(half) in wrong.json()["remedy"]

        head = await client.head(path)
        assert (head.headers["Upload-Offset"], head.headers["Upload-Complete"]) == (str(half), "?0")
        done = await client.put(path, **part(data, half, len(data)))
        assert (done.status_code, done.json()["complete"]) == (201, True)
        assert (await client.head(path)).headers["Upload-Complete"] == "?1"
        assert (await client.get(path)).content == data
        assert (await upload(client, data)).json()["complete"] is True
    async with db.transaction() as tx:
        found = await service.find(tx, person.account_id, bytes.fromhex(sha(data)))
    assert found is not None
    assert found.usable
    assert found.meta == ArrayMeta("float32", (BIG,))


async def test_d3_a_file_is_an_attachment_in_a_sandbox_whole_or_in_part(db: Database, tmp_path: Path) -> None:
    data, person = some_array(3), await make_person(db)
    async with served(db, tmp_path) as running, running.client(person) as client:
        assert (await upload(client, data)).status_code == 201
        for asked in ({}, {"Range": "bytes=0-9"}):
            answer = await client.get(f"/api/v1/artifacts/{sha(data)}", headers=asked)
            assert answer.status_code == (206 if asked else 200)
            assert answer.headers["Content-Type"] == "application/octet-stream"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Disposition"].startswith("attachment")
            assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


@pytest.mark.parametrize(
    ("header", "status", "start", "stop"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=1048570-1048580", 206, 1_048_570, 1_048_581),
        ("bytes=2800000-", 206, 2_800_000, None),
        ("bytes=-5", 206, -5, None),
        ("bytes=0-99999999", 206, 0, None),
        ("bytes=nonsense", 200, 0, None),
        ("bytes=99999999-", 416, 0, 0),
        ("bytes=5-4", 416, 0, 0),
    ],
)
async def test_ranges(db: Database, tmp_path: Path, header: str, status: int, start: int, stop: int | None) -> None:
    data, person = some_array(BIG), await make_person(db)
    client = (await assembled(db, tmp_path)).app.test_client()
    await put(client, data, person)
    answer = await client.get(f"/api/v1/artifacts/{sha(data)}", headers={**person.headers, "Range": header})
    assert answer.status_code == status
    if status != 416:
        assert await answer.get_data() == data[start:stop]
    if status == 206:
        first = start if start >= 0 else len(data) + start
        last = len(data) - 1 if stop is None else stop - 1
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(data)}"


async def test_content_of_another_digest_is_refused_and_the_upload_starts_again(db: Database, tmp_path: Path) -> None:
    data, person = some_array(), await make_person(db)
    corrupt = data[:-1] + bytes([data[-1] ^ 1])
    client = (await assembled(db, tmp_path)).app.test_client()
    path = f"/api/v1/artifacts/{sha(data)}"
    length = {"Content-Length": str(len(corrupt))}
    refused = await client.put(path, data=corrupt, headers={**person.headers, **length})
    assert refused.status_code == 422
    assert (await refused.get_json())["field"] == "digest"
    assert (await client.get(path, headers=person.headers)).status_code == 404
    assert not list((tmp_path / "staging").iterdir())
    assert (await put(client, data, person)).status_code == 201


async def test_a_digest_opens_nothing_in_another_account(db: Database, tmp_path: Path) -> None:
    data, owner, other = some_array(), await make_person(db), await make_person(db)
    client = (await assembled(db, tmp_path)).app.test_client()
    path = f"/api/v1/artifacts/{sha(data)}"
    await client.put(path, data=data, headers=owner.headers)
    assert (await client.get(path, headers=other.headers)).status_code == 404
    assert (await client.head(path, headers=other.headers)).status_code == 404
    body = {"digest": sha(data), "size_bytes": len(data)}
    told = await (await client.post("/api/v1/artifacts", json=body, headers=other.headers)).get_json()
    assert (told["offset"], told["complete"]) == (0, False)
    assert (await client.get(path)).status_code == 401


async def test_at_rest_neither_names_nor_bytes_tell_anything(db: Database, tmp_path: Path) -> None:
    data = b"\x93NUMPY" + b"plain as day " * 200_000
    people = [await make_person(db), await make_person(db)]
    client = (await assembled(db, tmp_path)).app.test_client()
    for person in people:
        await put(client, data, person)
    files = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
    assert len(files) == len(people)
    assert files[0].read_bytes()[32:] != files[1].read_bytes()[32:]
    for path in files:
        assert sha(data) not in path.name
        assert b"plain as day" not in path.read_bytes()


@pytest.mark.parametrize("position", [5, 40, 1_500_000, -1])
async def test_damage_at_rest_is_noticed(db: Database, tmp_path: Path, position: int) -> None:
    data, person = some_array(BIG), await make_person(db)
    client = (await assembled(db, tmp_path)).app.test_client()
    path = f"/api/v1/artifacts/{sha(data)}"
    await put(client, data, person)
    (stored,) = [found for found in (tmp_path / "artifacts").rglob("*") if found.is_file()]
    sealed = bytearray(stored.read_bytes())
    sealed[position] ^= 1
    stored.write_bytes(sealed)
    span = {"Range": f"bytes={len(data) - 10}-"} if position == -1 else {"Range": "bytes=1400000-1600000"}
    if position == 40:
        span = {"Range": "bytes=0-10"}
    answer = await client.get(path, headers={**person.headers, **span})
    assert answer.status_code == 503


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Content-Range": "bytes 0-5/10"}, "Content-Range"),
        ({"Content-Range": "bytes 5-4/10"}, "Content-Range"),
        ({"Content-Range": "bytes 0-3/2"}, "Content-Range"),
        ({"Content-Range": "items 0-3/4"}, "Content-Range"),
        ({"Content-Range": "bytes 0-3/*"}, "Content-Range"),
        ({"Content-Range": "bytes 0-3/99999999999999"}, "size_bytes"),
        ({"Content-Length": "0"}, "Content-Length"),
    ],
)
async def test_ranges_that_do_not_fit_are_refused(
    db: Database, tmp_path: Path, headers: dict[str, str], field: str
) -> None:
    person = await make_person(db)
    client = (await assembled(db, tmp_path)).app.test_client()
    body = b"" if field == "Content-Length" else b"1234"
    sent = {**person.headers, "Content-Length": str(len(body)), **headers}
    answer = await client.put(f"/api/v1/artifacts/{'0' * 64}", data=body, headers=sent)
    assert answer.status_code == 422
    assert (await answer.get_json())["field"] == field


async def test_digests_and_sizes_that_cannot_be(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    client = (await assembled(db, tmp_path)).app.test_client()
    for digest in ("x", "A" * 64, "0" * 63):
        answer = await client.get(f"/api/v1/artifacts/{digest}", headers=person.headers)
        assert (answer.status_code, (await answer.get_json())["field"]) == (422, "digest")
    for size in (0, -1, 2**63, 2**40):
        answer = await client.post(
            "/api/v1/artifacts", json={"digest": "0" * 64, "size_bytes": size}, headers=person.headers
        )
        assert (answer.status_code, (await answer.get_json())["field"]) == (422, "size_bytes")


async def test_a_body_longer_than_its_range_ends_there(db: Database, tmp_path: Path) -> None:
    """Content-Length and Content-Range agree, the client simply stops: what came is kept and can be resumed."""
    data, person = some_array(BIG), await make_person(db)

    async def half() -> AsyncIterator[bytes]:
        yield data[:2_000_000]
        raise ConnectionError

    async with served(db, tmp_path) as running, running.client(person) as client:
        path = f"/api/v1/artifacts/{sha(data)}"
        with pytest.raises(ConnectionError):
            await client.put(path, content=half(), headers={"Content-Length": str(len(data))})
        async with asyncio.timeout(60):
            resumed, offset = None, 0
            # Refused as long as the broken upload is being put away, which may go on behind the offset that was told.
            while resumed is None or resumed.status_code == 409:
                offset = int((await client.head(path)).headers.get("Upload-Offset", "0"))
                if offset:
                    resumed = await client.put(path, **part(data, offset, len(data)))
                await asyncio.sleep(0.02)
        assert resumed.status_code == 201
        assert 1_000_000 <= offset <= 2_000_000
        assert (await client.get(path)).content == data


async def test_a_crash_before_the_row_is_finished_by_the_next_announcement(db: Database, tmp_path: Path) -> None:
    data, person = some_array(), await make_person(db)
    uploads = (await assembled(db, tmp_path)).context.uploads
    digest = bytes.fromhex(sha(data))
    await uploads.announce(person.account_id, digest, len(data))
    uploads.staging.path(person.account_id, digest, OWNER).write_bytes(data)
    again = await uploads.announce(person.account_id, digest, len(data))
    assert again.complete
    assert await uploads.store.head(person.account_id, digest, 10) == data[:10]


async def test_quota_counts_what_the_owner_announced(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    made = (await assembled(db, tmp_path)).context.uploads
    uploads = Uploads(db, made.store, made.staging, Quota(bytes_max=100, artifacts_max=2), 3600.0)
    await uploads.announce(person.account_id, b"1" * 32, 60)
    with pytest.raises(LimitExceeded):
        await uploads.announce(person.account_id, b"2" * 32, 41)
    await uploads.announce(person.account_id, b"2" * 32, 40)
    await uploads.announce(person.account_id, b"3" * 32, 500, writer="a node")
    with pytest.raises(LimitExceeded):
        await uploads.announce(person.account_id, b"4" * 32, 0 + 1)


async def test_an_unpaid_output_is_not_its_owners_to_read(db: Database, tmp_path: Path) -> None:
    data, person = some_array(), await make_person(db)
    coordinator = await assembled(db, tmp_path)
    uploads, client = coordinator.context.uploads, coordinator.app.test_client()
    digest, path = bytes.fromhex(sha(data)), f"/api/v1/artifacts/{sha(data)}"

    async def body() -> AsyncIterator[bytes]:
        yield data

    done = await uploads.receive(
        person.account_id, digest, len(data), body(), first=0, last=len(data) - 1, writer="a node"
    )
    assert done.complete
    assert (await client.get(path, headers=person.headers)).status_code == 404
    told = await client.post(
        "/api/v1/artifacts", json={"digest": sha(data), "size_bytes": len(data)}, headers=person.headers
    )
    assert (await told.get_json())["complete"] is False
    async with db.transaction() as tx:
        assert await service.release(tx, person.account_id, [digest]) == 1
    assert await (await client.get(path, headers=person.headers)).get_data() == data


async def test_an_attempt_learns_nothing_of_what_else_is_stored_and_sends_everything_itself(
    db: Database, tmp_path: Path
) -> None:
    """D1: neither HEAD, announcement nor upload tells an attempt that the account has this content already."""
    data, person = some_array(), await make_person(db)
    coordinator = await assembled(db, tmp_path)
    uploads, client = coordinator.context.uploads, coordinator.app.test_client()
    digest = bytes.fromhex(sha(data))
    await put(client, data, person)

    async def body() -> AsyncIterator[bytes]:
        yield data

    async def sent() -> bool:
        async with db.transaction() as tx:
            return await service.sent_by(tx, person.account_id, digest, "attempt 1") is not None

    for size in (len(data), len(data) + 1):
        for asked in (uploads.status, uploads.announce):
            found = await asked(person.account_id, digest, size, "attempt 1")
            assert found is not None
            assert (found.offset, found.size_bytes, found.complete) == (0, size, False)
    assert not await sent()
    done = await uploads.receive(
        person.account_id, digest, len(data), body(), first=0, last=len(data) - 1, writer="attempt 1"
    )
    assert done.complete
    assert await sent()
    async with db.transaction() as tx:
        assert await service.sent_by(tx, person.account_id, digest, "attempt 2") is None
    assert await (await client.get(f"/api/v1/artifacts/{sha(data)}", headers=person.headers)).get_data() == data


async def test_one_digest_announced_with_many_sizes_is_one_file(db: Database, tmp_path: Path) -> None:
    """Each size had a staging file of its own, and only the last one counted to the quota."""
    person = await make_person(db)
    uploads = (await assembled(db, tmp_path)).context.uploads

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 10

    for size in range(100, 90, -1):
        await uploads.announce(person.account_id, b"1" * 32, size)
        so_far = await uploads.status(person.account_id, b"1" * 32, None, OWNER)
        assert so_far is not None
        offset = so_far.offset
        done = await uploads.receive(
            person.account_id, b"1" * 32, size, body(), first=offset, last=offset + 9, writer=OWNER
        )
        if done.offset == 80:
            break
    assert len(list((tmp_path / "staging").iterdir())) == 1
    smaller = await uploads.announce(person.account_id, b"1" * 32, 20)
    assert smaller.offset == 0


async def test_a_writer_that_sends_rubbish_spoils_only_its_own_upload(db: Database, tmp_path: Path) -> None:
    data, person = some_array(), await make_person(db)
    uploads = (await assembled(db, tmp_path)).context.uploads
    digest = bytes.fromhex(sha(data))
    uploads.staging.path(person.account_id, digest, "bad node").write_bytes(b"rubbish")
    found = await uploads.announce(person.account_id, digest, len(data), writer="good node")
    assert found.offset == 0


async def test_given_up_uploads_are_forgotten(db: Database, tmp_path: Path) -> None:
    person = await make_person(db)
    uploads = (await assembled(db, tmp_path)).context.uploads
    await uploads.announce(person.account_id, b"1" * 32, 10)
    staged = uploads.staging.path(person.account_id, b"1" * 32, OWNER)
    staged.write_bytes(b"12")
    assert await uploads.staging.expire(3600) == 0
    assert await uploads.staging.expire(-1) == 1
    assert await uploads.expire() == 0
    await db.run(lambda tx: execute(tx, "UPDATE artifact SET announced_at = now() - interval '2 days'"))
    assert await uploads.expire() == 1
    async with db.transaction() as tx:
        assert await service.find(tx, person.account_id, b"1" * 32) is None


async def test_quota_and_expiry_are_settings(db: Database, tmp_path: Path) -> None:
    small = {"artifact_quota_bytes": 2048, "artifact_quota_count": 2, "upload_keep_s": 7200}
    uploads = (await assembled(db, tmp_path, **small)).context.uploads
    assert (uploads.quota.bytes_max, uploads.quota.artifacts_max, uploads.unfinished_s) == (2048, 2, 7200)


@pytest.mark.parametrize("what", ["copy", "staging"])
async def test_a_file_that_opens_after_a_cancellation_is_closed(db: Database, tmp_path: Path, what: str) -> None:
    uploads, person = (await assembled(db, tmp_path)).context.uploads, await make_person(db)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def open_it() -> None:
        if what == "copy":
            await uploads.store.copy_to(person.account_id, b"1" * 32, fifo)
        else:
            async with uploads.staging.locked(fifo):
                pass

    task = asyncio.create_task(open_it())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # Only now can the thread open it. Its end of the pipe is closed at once, not when somebody collects garbage.
    gc.disable()
    try:
        reader = await asyncio.to_thread(fifo.open, "rb")
        with reader:
            async with asyncio.timeout(60):
                assert await asyncio.to_thread(reader.read) == b""
    finally:
        gc.enable()


async def test_a_lost_key_file_is_told_and_never_replaced(db: Database, tmp_path: Path) -> None:
    await assembled(db, tmp_path)
    (tmp_path / "artifact.key").write_bytes(b"short")
    with pytest.raises(Unavailable):
        await assembled(db, tmp_path)


def signed(running: Running, key: SigningKey, digest: bytes, **wrong: Any) -> dict[str, str]:
    context = running.coordinator.context
    request = ArtifactRequest(
        method=wrong.pop("method", "GET"),
        digest=digest,
        size_bytes=wrong.pop("size_bytes", 10),
        attempt_id=str(uuid.uuid4()),
        fence=1,
    )
    how: dict[str, Any] = {
        "network": "devnet",
        "audience": context.key.public,
        "incarnation": 1,
        "counter": wrong.pop("counter", 1),
        "expires_ms": context.now_ms() + 50_000,
    }
    raw = envelope.seal(request, key, **{**how, **wrong})
    return {"Authorization": f"Qubix {base64.b64encode(raw).decode()}"}


async def test_signed_requests_that_are_not_to_be_believed(db: Database, tmp_path: Path) -> None:
    data, person, key = some_array(), await make_person(db), SigningKey.generate()
    digest = bytes.fromhex(sha(data))
    async with db.transaction() as tx:
        await accounts.ensure_node(tx, key.peer_id)
        assert await accounts.next_incarnation(tx, key.peer_id) == 1
    async with served(db, tmp_path) as running, running.client() as client:
        await client.put(f"/api/v1/artifacts/{sha(data)}", content=data, headers=person.headers)
        now_ms = running.coordinator.context.now_ms()
        cases: list[tuple[dict[str, str], int, str]] = [
            (signed(running, key, digest, network="main"), 401, "wrong_network"),
            (signed(running, key, digest, audience=b"y" * 32), 401, "wrong_audience"),
            (signed(running, key, digest, audience=envelope.ANYONE), 401, "wrong_audience"),
            (signed(running, key, digest, expires_ms=now_ms - 1), 401, "expired"),
            (signed(running, key, digest, expires_ms=now_ms + 110_000), 401, "expired"),
            (signed(running, key, digest, incarnation=0, counter=2), 401, "replayed"),
            (signed(running, key, digest, method="PUT", counter=3), 401, "wrong_audience"),
            (signed(running, key, b"z" * 32, counter=4), 401, "wrong_audience"),
            (signed(running, SigningKey.generate(), digest), 404, "not_found"),
            (signed(running, key, digest, counter=5), 403, "forbidden"),
            (signed(running, key, digest, counter=5), 401, "replayed"),
            ({"Authorization": "Qubix !!!"}, 400, "malformed"),
            ({"Authorization": "Qubix " + "A" * 9000}, 400, "malformed"),
        ]
        for headers, status, code in cases:
            answer = await client.get(f"/api/v1/artifacts/{sha(data)}", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert answer.headers["Content-Type"] == "application/problem+json"
