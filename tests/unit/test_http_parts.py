# SPDX-License-Identifier: Apache-2.0
"""Small parts of the edges: byte ranges, results joined from parts, requests seen once, paced bodies."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

from qubix_coordinator.errors import LimitExceeded
from qubix_coordinator.http import requests_seen, results
from qubix_coordinator.http.downloads import parse_range
from qubix_coordinator.http.pacing import Paced, taken
from qubix_coordinator.http.problems import NoSuchRange
from qubix_coordinator.http.requests_seen import SeenRequests
from qubix_protocol.arrays import Array, ArrayMeta, from_npy, npy_prefix, pack_arrays
from qubix_protocol.errors import Expired, Malformed, Replayed


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("", None),
        ("bytes=-", None),
        ("lines=0-1", None),
        ("bytes=0-1,3-4", None),
        ("bytes=0-", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=99-99", (99, 100)),
        ("bytes=50-1000", (50, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-1000", (0, 100)),
    ],
)
def test_byte_ranges(header: str | None, found: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == found


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=5-4", "bytes=-0"])
def test_byte_ranges_outside_the_content(header: str) -> None:
    with pytest.raises(NoSuchRange):
        parse_range(header, 100)


def reader(data: bytes) -> results.Read:
    async def read(start: int, stop: int) -> bytes:
        return data[start:stop]

    return read


def streamer(data: bytes) -> results.Stream:
    async def stream(start: int, stop: int) -> AsyncIterator[bytes]:
        for at in range(start, stop, 1000):
            yield data[at : min(at + 1000, stop)]

    return stream


@pytest.mark.asyncio
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "bool", "uint64"])
async def test_an_output_is_joined_from_its_parts(dtype: str) -> None:
    rng = np.random.default_rng(1)
    whole = (rng.random((700, 31)) * 100).astype(dtype)
    cuts = [0, 1, 3, 500, 700]
    packed = [
        pack_arrays({"before": rng.random((5, n + 1)), "wanted": whole[a:b], "after": np.zeros(70_000, np.int8)})
        for n, (a, b) in enumerate(itertools.pairwise(cuts))
    ]
    parts = [(await results.find_array(reader(data), "wanted"), streamer(data)) for data in packed]
    prefix = npy_prefix(ArrayMeta.of(whole))
    joined = b"".join([piece async for piece in results.join(parts, prefix)])
    assert np.array_equal(from_npy(joined), whole)
    assert len(joined) == len(prefix) + sum(span.stop - span.start for span, _ in parts)


@pytest.mark.asyncio
@pytest.mark.parametrize("shape", [(1,), (2,), (3, 5), (), (0, 4)])
async def test_the_smallest_arrays_are_found_too(shape: tuple[int, ...]) -> None:
    array: Array = np.ones(shape, np.int8)
    data = pack_arrays({"x": array})
    span = await results.find_array(reader(data), "x")
    assert data[span.start : span.stop] == array.tobytes()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "junk", [b"", b"\x81", b"\xc1", b"\x81\xa1x\x01", b"\x81\xa1x\xc7\x05\x02abcde", b"\xdf\xff\xff\xff\xff"]
)
async def test_parts_that_are_no_arrays_are_refused(junk: bytes) -> None:
    with pytest.raises(Malformed):
        await results.find_array(reader(junk), "x")


@pytest.mark.asyncio
async def test_an_array_that_is_not_there() -> None:
    with pytest.raises(Malformed):
        await results.find_array(reader(pack_arrays({"x": np.ones(3)})), "y")


def test_a_signed_request_serves_once_and_is_forgotten_after_its_life() -> None:
    seen = SeenRequests()
    seen.use(b"a", (1, 1), expires_ms=60_000, now_ms=0)
    with pytest.raises(Replayed):
        seen.use(b"a", (1, 1), expires_ms=60_000, now_ms=59_000)
    seen.use(b"b", (1, 1), expires_ms=60_000, now_ms=0)
    seen.use(b"a", (2, 1), expires_ms=60_000, now_ms=0)
    with pytest.raises(Expired):
        seen.use(b"a", (3, 1), expires_ms=requests_seen.LIFE_MS_MAX + 1, now_ms=0)


def test_what_is_remembered_is_bounded() -> None:
    seen = SeenRequests(kept_max=10)
    for number in range(10):
        seen.use(b"a", (1, number), expires_ms=50, now_ms=0)
    with pytest.raises(LimitExceeded):
        seen.use(b"a", (1, 99), expires_ms=50, now_ms=0)
    seen.use(b"a", (1, 99), expires_ms=200, now_ms=100)


@pytest.mark.asyncio
async def test_a_streamed_body_is_not_read_faster_than_it_is_taken() -> None:
    asked, scope = 0, {"type": "http", "method": "PUT", "path": "/api/v1/artifacts/x"}
    seen: list[int] = []

    async def receive() -> dict[str, object]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": bytes(600_000), "more_body": True}

    async def app(scope: dict[str, object], receive: Callable[[], Awaitable[dict[str, bytes]]], send: object) -> None:
        await receive()
        await receive()
        third = asyncio.create_task(receive())
        await asyncio.sleep(0)
        seen.append(asked)
        taken(scope, 600_000)
        await asyncio.wait_for(third, 5)

    await Paced(app)(scope, receive, None)
    assert (seen, asked) == ([2], 3)


@pytest.mark.asyncio
async def test_other_bodies_end_where_they_grow_too_long() -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": bytes(600_000), "more_body": True}

    async def app(scope: dict[str, object], receive: Callable[[], Awaitable[dict[str, bool]]], send: object) -> None:
        assert [(await receive())["more_body"] for _ in range(2)] == [True, False]

    await Paced(app)({"type": "http", "method": "POST", "path": "/api/v1/jobs"}, receive, None)


@pytest.mark.asyncio
async def test_the_end_of_a_websocket_waits_until_what_was_said_last_is_taken() -> None:
    coming = iter(
        [*({"type": "websocket.receive", "bytes": bytes([n])} for n in range(3)), {"type": "websocket.disconnect"}]
    )
    seen: list[bool] = []

    async def receive() -> dict[str, object]:
        return next(coming)

    async def app(scope: dict[str, object], receive: Callable[[], Awaitable[dict[str, object]]], send: object) -> None:
        assert [(await receive())["bytes"] for _ in range(3)] == [b"\0", b"\1", b"\2"]
        end = asyncio.create_task(receive())
        for amount in (2, 1):
            for _ in range(10):
                await asyncio.sleep(0)
            seen.append(end.done())
            taken(scope, amount)
        async with asyncio.timeout(5):
            assert (await end)["type"] == "websocket.disconnect"

    await Paced(app)({"type": "websocket", "path": "/"}, receive, None)
    assert seen == [False, False]


@pytest.mark.asyncio
async def test_messages_of_a_websocket_wait_for_each_other() -> None:
    came = 0

    async def receive() -> dict[str, object]:
        nonlocal came
        came += 1
        return {"type": "websocket.receive", "bytes": b""}

    async def app(scope: dict[str, object], receive: Callable[[], Awaitable[dict[str, str]]], send: object) -> None:
        async def read() -> None:
            while True:
                assert (await receive())["text"] == ""

        reading = asyncio.create_task(read())
        for _ in range(100):
            await asyncio.sleep(0)
        assert came == 16
        taken(scope, 3)
        for _ in range(100):
            await asyncio.sleep(0)
        reading.cancel()

    await Paced(app)({"type": "websocket"}, receive, None)
    assert came == 19


@pytest.mark.asyncio
async def test_what_escapes_from_the_application_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        await Paced(app)({"type": "lifespan"}, app, None)  # type: ignore[arg-type]
    assert [record.message for record in caplog.records] == ["http.failed"]
