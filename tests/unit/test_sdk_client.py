# SPDX-License-Identifier: Apache-2.0
"""The client against a server on real sockets. Each scene is written once and played by both ports."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import qubix
from qubix import errors
from qubix.async_client import AsyncClient
from qubix.blocking import now
from qubix.client import Client, Job
from qubix.job import AsyncJob
from qubix.settings import Settings
from qubix.transport import BlockingPort
from qubix_protocol.api import AccountView, JobBody
from qubix_protocol.arrays import ArrayMeta, from_npy
from qubix_protocol.keys import SigningKey
from qubix_protocol.states import JobState, Reason
from tests.support.fake_api import DROP, DROP_AFTER, TOKEN, FakeApi

A = np.arange(12, dtype=np.float32).reshape(4, 3)
B = np.arange(6, dtype=np.float32).reshape(3, 2)
Scene = Callable[[AsyncClient], Coroutine[Any, Any, Any]]
Play = Callable[[Scene], Any]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as found:
        yield found


def settings_for(url: str, folder: Path, **changes: Any) -> Settings:
    return replace(Settings(coordinator_url=url, token=TOKEN, data_dir=folder, tries_max=3, timeout_s=10), **changes)


@pytest.fixture(params=["blocking", "async"])
def play(request: pytest.FixtureRequest, api: FakeApi, tmp_path: Path) -> Play:
    """Runs a scene with the chosen port; keywords change the settings."""

    def blocking(scene: Scene, settings: Settings) -> Any:
        client = AsyncClient(settings=settings, port=BlockingPort(settings, settings.token))
        try:
            return now(scene(client))
        finally:
            now(client.close())

    async def awaited(scene: Scene, settings: Settings) -> Any:
        async with AsyncClient(settings=settings) as client:
            return await scene(client)

    def run(scene: Scene, **changes: Any) -> Any:
        settings = settings_for(api.url, tmp_path, **changes)
        if request.param == "blocking":
            return blocking(scene, settings)
        return asyncio.run(awaited(scene, settings))

    return run


async def account(client: AsyncClient) -> Any:
    return await client.account()


@pytest.mark.parametrize("what", [429, 502, 503, 504, DROP])
def test_what_passes_is_tried_again(play: Play, api: FakeApi, what: int | str) -> None:
    api.trouble("GET", "/account", what, what)
    assert play(account).balance_qu == 1_000
    assert len(api.calls("GET", "/account")) == 3


def test_what_stays_is_told_after_the_last_try(play: Play, api: FakeApi) -> None:
    api.trouble("GET", "/account", 503, 503, 503, 503)
    with pytest.raises(errors.Unavailable) as caught:
        play(account)
    assert caught.value.status == 503
    assert len(api.calls("GET", "/account")) == 3


def test_a_request_that_is_not_repeatable_is_sent_once(play: Play, api: FakeApi) -> None:
    async def once(client: AsyncClient) -> AccountView:
        return await client._session.post("/account/once", None, AccountView, repeatable=False)

    api.trouble("POST", "/account/once", DROP_AFTER)
    with pytest.raises(errors.CannotReach):
        play(once)
    assert api.balance_qu == 1_005


def test_nobody_at_the_address(play: Play) -> None:
    with pytest.raises(errors.CannotReach, match=r"127\.0\.0\.1:9") as caught:
        play(account, coordinator_url="http://127.0.0.1:9", tries_max=1)
    assert "qubix up" in caught.value.remedy


@pytest.mark.parametrize(
    ("token", "path", "kind", "field"),
    [("wrong", "account", errors.Unauthorised, "Authorization"), (TOKEN, "job", errors.NotFound, "")],
)
def test_problems_become_errors(play: Play, token: str, path: str, kind: type[errors.ApiError], field: str) -> None:
    async def scene(client: AsyncClient) -> None:
        await (client.account() if path == "account" else client.job("7d444840-9dc0-11d1-b245-5ffdce74fad2"))

    with pytest.raises(kind) as caught:
        play(scene, token=token)
    assert caught.value.remedy
    assert ("qubix wallet login" in caught.value.remedy) == (path == "account")
    assert caught.value.code == ("unauthorised" if path == "account" else "not_found")
    assert caught.value.field == field


async def submit(client: AsyncClient, **more: Any) -> AsyncJob:
    return await client.submit("matmul", a=A, b=B, cap_qu=100, **more)


def test_submission_uploads_signs_and_starts(play: Play, api: FakeApi) -> None:
    async def scene(client: AsyncClient) -> tuple[AsyncJob, str]:
        return await submit(client, rate_qu_per_h_max=7), client.wallet.public_key

    job, _ = play(scene)
    assert job.view.kernel == "matmul"
    arrays = {digest: from_npy(bytes(upload.content)) for digest, upload in api.uploads.items()}
    assert sorted(array.shape for array in arrays.values()) == [(3, 2), (4, 3)]
    (order,) = api.orders
    assert (order.kernel, order.cap_qu, order.rate_qu_per_h_max) == ("matmul", 100, 7)
    assert list(api.by_key) == [order.idempotency_key]


@pytest.mark.parametrize("wish", [None, 3])
def test_a_wish_to_spread_reaches_the_coordinator(play: Play, api: FakeApi, wish: int | None) -> None:
    play(lambda client: submit(client, spread=wish))
    (sent,) = api.calls("POST", "/api/v1/jobs")
    assert msgspec.json.decode(sent.body, type=JobBody).spread == wish


@pytest.mark.parametrize("wish", [0, 65])
def test_a_wish_to_spread_beyond_bounds_is_refused_before_anything_is_sent(play: Play, api: FakeApi, wish: int) -> None:
    with pytest.raises(errors.BadUsage, match="spread"):
        play(lambda client: submit(client, spread=wish))
    assert not api.uploads


def test_a_lost_answer_to_a_submission_does_not_double_the_job(play: Play, api: FakeApi) -> None:
    api.trouble("POST", "/api/v1/jobs", DROP_AFTER, 503)
    job = play(submit)
    assert list(api.jobs) == [job.id]
    assert len({one.headers["idempotency-key"] for one in api.calls("POST", "/api/v1/jobs")}) == 1


def test_what_is_stored_already_is_not_sent_again(play: Play, api: FakeApi) -> None:
    play(submit)
    sent = len(api.calls("PUT", "/artifacts/"))
    play(submit)
    assert (sent, len(api.calls("PUT", "/artifacts/"))) == (2, 2)


def test_an_upload_goes_on_where_it_broke(play: Play, api: FakeApi) -> None:
    big = np.arange(4_000, dtype=np.float32).reshape(4, 1_000)
    api.trouble("PUT", "/artifacts/", DROP_AFTER, DROP, 503)
    seen: list[int] = []

    async def scene(client: AsyncClient) -> None:
        await client.submit(
            "matmul", a=big, b=np.ones((1_000, 1), np.float32), cap_qu=9, on_upload=lambda done, size: seen.append(done)
        )

    play(scene, upload_part_bytes=5_000)
    assert any(
        np.array_equal(from_npy(bytes(one.content)), big) for one in api.uploads.values() if one.size_bytes > 9_999
    )
    first = [one.headers["content-range"] for one in api.calls("PUT", "/artifacts/")]
    assert first.count("bytes 0-4999/16128") == 1, "what arrived before the break is not sent again"
    assert seen[-1] == max(seen[-1:])


def test_a_file_is_an_input(play: Play, api: FakeApi, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", A)

    async def scene(client: AsyncClient) -> AsyncJob:
        return await client.submit("matmul", a=tmp_path / "a.npy", b=str(_saved(tmp_path, B)), cap_qu=5)

    job = play(scene)
    assert job.view.inputs == {"a": ArrayMeta("float32", (4, 3)), "b": ArrayMeta("float32", (3, 2))}


def _saved(folder: Path, array: np.ndarray[Any, Any]) -> Path:
    np.save(folder / "other.npy", array)
    return folder / "other.npy"


@pytest.mark.parametrize(
    ("kernel", "given", "field"),
    [
        ("nothing", {"a": A}, "kernel"),
        ("matmul", {"a": A}, "b"),
        ("matmul", {"a": A, "b": B, "c": 1}, "c"),
        ("matmul", {"a": A, "b": B[:2]}, "inputs.b.shape"),
        ("matmul", {"a": A.astype(np.complex64), "b": B}, "a"),
        ("matmul", {"a": A, "b": "missing.npy"}, "b"),
        ("matmul", {"a": A, "b": B, "cap_qu": 0}, "cap_qu"),
        ("matmul", {"a": A, "b": B, "where": "gpu_rm>=8"}, "where"),
        ("matmul", {"a": A, "b": B, "provider": "nobody"}, "provider"),
        ("knn", {"queries": A, "data": A, "k": 0}, "params.k"),
        ("knn", {"queries": A, "data": A, "k": [1]}, "k"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_sent(
    play: Play, api: FakeApi, kernel: str, given: dict[str, Any], field: str
) -> None:
    async def scene(client: AsyncClient) -> None:
        await client.submit(kernel, **{"cap_qu": 5, **given})

    with pytest.raises(errors.BadUsage) as caught:
        play(scene)
    assert caught.value.field == field
    assert caught.value.remedy
    assert api.seen == []


def test_offers_come_from_as_many_pages_as_there_are(play: Play, api: FakeApi) -> None:
    async def scene(client: AsyncClient) -> list[list[int]]:
        whole = await client.offers("price>0", order="price-")
        one = await client.search("price>0", order="price-", limit=1)
        again = await client.search("price>0", order="price-", limit=1, after=one.next)
        each = [offer async for offer in client.each_offer("price<300")]
        return [[offer.rate_qu_per_h for offer in found] for found in (whole, one.offers, again.offers, each)]

    assert play(scene) == [[300, 200, 100], [300], [200], [100, 200]]


@pytest.mark.parametrize("given", [{"query": "gpu_rm>=8"}, {"order": "gpu_rm"}])
def test_a_wrong_query_is_refused_before_anything_is_sent(play: Play, api: FakeApi, given: dict[str, str]) -> None:
    async def scene(client: AsyncClient) -> None:
        await client.offers(**given)

    with pytest.raises(errors.BadUsage) as caught:
        play(scene)
    assert caught.value.field == next(iter(given))
    assert "^^^^^^" in caught.value.problem
    assert api.seen == []


def test_missing_balance_is_an_error_of_its_own(play: Play) -> None:
    async def scene(client: AsyncClient) -> None:
        await client.submit("matmul", a=A, b=B, cap_qu=5_000)

    with pytest.raises(errors.NotEnoughBalance) as caught:
        play(scene)
    assert (caught.value.field, caught.value.remedy) == ("cap_qu", "Deposit QU")


def test_another_coordinator_at_a_known_address_is_refused(play: Play, api: FakeApi) -> None:
    async def network(client: AsyncClient) -> None:
        await client.network()

    play(network)
    api.key = SigningKey.generate()
    with pytest.raises(errors.CoordinatorChanged) as caught:
        play(submit)
    assert "coordinators.json" in caught.value.remedy
    assert api.jobs == {}
    assert api.uploads == {}


async def follow(client: AsyncClient, job_id: str) -> list[tuple[JobState, float]]:
    job = await client.job(job_id)
    return [(update.state, update.fraction) async for update in job.follow(20)]


def test_following_resumes_at_its_cursor(play: Play, api: FakeApi) -> None:
    job = api.add_job()
    running = [api.event(job.job_id, "1", "snapshot", state=JobState.RUNNING, fraction=0.25)]
    rest = [
        api.event(job.job_id, "2", fraction=0.5),
        {"topic": "something:new", "kind": "delta", "cursor": "3", "data": 1},
        api.event(job.job_id, "4", state=JobState.SETTLED, fraction=1.0),
    ]
    api.live = [running, rest]
    api.jobs[job.job_id] = job
    api.on_poll = [job] * 50
    assert play(lambda client: follow(client, job.job_id)) == [
        (JobState.QUEUED, 0.0),
        (JobState.RUNNING, 0.25),
        (JobState.RUNNING, 0.5),
        (JobState.SETTLED, 1.0),
    ]
    assert [one["cursor"] for one in api.subscriptions] == [None, "1"]
    assert api.subscriptions[0]["subscribe"] == [f"job:{job.job_id}"]


def test_without_the_live_feed_following_asks(play: Play, api: FakeApi) -> None:
    job = api.add_job()
    states = [api.change(job.job_id, fraction=done) for done in (0.0, 0.5, 0.75)]
    api.on_poll = [*states, api.change(job.job_id, state=JobState.FAILED, fraction=0.75)]
    found = play(lambda client: follow(client, job.job_id))
    assert [fraction for _, fraction in found] == [0.0, 0.5, 0.75, 0.75]
    assert found[-1][0] is JobState.FAILED


def test_a_coordinator_that_restarts_is_waited_for(play: Play, api: FakeApi) -> None:
    job = api.add_job()
    api.on_poll = [job]

    async def scene(client: AsyncClient) -> JobState:
        handle = await client.job(job.job_id)
        api.trouble("GET", f"/jobs/{job.job_id}", DROP, DROP, DROP, 503)
        api.on_poll = [api.change(job.job_id, state=JobState.CANCELLED)]
        return (await handle.wait(20)).state

    assert play(scene) is JobState.CANCELLED


def test_patience_ends(play: Play, api: FakeApi) -> None:
    job = api.add_job()
    api.live, api.hold_last_live = [[api.event(job.job_id, "1")]], True

    async def scene(client: AsyncClient) -> None:
        await (await client.job(job.job_id)).wait(0.3)

    with pytest.raises(errors.NotFinished) as caught:
        play(scene)
    assert isinstance(caught.value, TimeoutError)


def test_a_result_is_joined_from_checked_parts(play: Play, api: FakeApi) -> None:
    async def scene(client: AsyncClient) -> tuple[Any, Any]:
        job = await submit(client)
        api.settle(job.id, [(0, 1, {"c": A[:1] @ B}), (1, 4, {"c": A[1:] @ B})])
        return await job.result(20), await job.receipts()

    result, receipts = play(scene)
    np.testing.assert_array_equal(result["c"], A @ B)
    (receipt,) = receipts
    assert (receipt.settlement.paid_qu, receipt.settlement.verdict) == (27, "ok")
    assert receipt.report.units_done == 4


@pytest.mark.parametrize("spoilt", ["bytes", "gap", "meta"])
def test_a_result_that_is_not_what_was_announced_is_refused(play: Play, api: FakeApi, spoilt: str) -> None:
    async def scene(client: AsyncClient) -> None:
        job = await submit(client)
        start = 1 if spoilt == "gap" else 0
        c = A[start:] @ B
        api.settle(job.id, [(start, 4, {"c": c.astype(np.float16) if spoilt == "meta" else c})])
        result = api.results[job.id]
        if spoilt == "bytes":
            api.uploads[result.parts[0].digest].content[-1] ^= 1
        if spoilt == "meta":
            api.results[job.id] = type(result)(
                job_id=job.id, outputs={"c": ArrayMeta("float32", (4, 2))}, parts=result.parts
            )
        await job.result(20)

    with pytest.raises(errors.NotGenuine):
        play(scene)


def test_a_receipt_of_another_coordinator_is_refused(play: Play, api: FakeApi) -> None:
    async def scene(client: AsyncClient) -> None:
        job = await submit(client)
        api.key = SigningKey.generate()
        api.settle(job.id, [(0, 4, {"c": A @ B})])
        await job.receipts()

    with pytest.raises(errors.NotGenuine):
        play(scene)


@pytest.mark.parametrize(
    ("state", "reason", "kind"),
    [
        (JobState.FAILED, Reason.BAD_INPUT, errors.JobFailed),
        (JobState.CANCELLED, Reason.CANCELLED_BY_CONSUMER, errors.JobCancelled),
    ],
)
def test_a_job_raises_its_own_error(
    play: Play, api: FakeApi, state: JobState, reason: Reason, kind: type[errors.JobEnded]
) -> None:
    async def scene(client: AsyncClient) -> None:
        job = await submit(client)
        api.change(job.id, state=state, reason=reason, reason_text="because", detail="a has NaN")
        await job.result(20)

    with pytest.raises(kind, match="because: a has NaN") as caught:
        play(scene)
    assert (caught.value.reason, caught.value.detail) == (reason, "a has NaN")


def test_cancel(play: Play, api: FakeApi) -> None:
    async def scene(client: AsyncClient) -> JobState:
        return (await (await submit(client)).cancel()).state

    assert play(scene) is JobState.CANCELLED


def test_an_estimate_needs_no_data(play: Play, api: FakeApi) -> None:
    async def scene(client: AsyncClient) -> None:
        await client.estimate("matmul", a=ArrayMeta("float32", (10, 3)), b=B)

    with pytest.raises(errors.NotFound):
        play(scene)
    (seen,) = api.calls("POST", "/jobs/estimate")
    assert b'"shape":[10,3]' in seen.body
    assert api.uploads == {}


# The synchronous face ------------------------------------------------------------------------------------------------


def test_the_synchronous_client_end_to_end(api: FakeApi, tmp_path: Path) -> None:
    with Client(settings=settings_for(api.url, tmp_path)) as market:
        job = market.submit("matmul", a=A, b=B, cap_qu=50)
        assert isinstance(job, Job)
        api.settle(job.id, [(0, 4, {"c": A @ B})])
        updates = list(job.follow(20))
        assert updates[-1].final
        np.testing.assert_array_equal(job.result()["c"], A @ B)
        assert len(job.receipts()) == 1
        assert market.job(job.id).view == job.view
        assert market.balance().available_qu == 1_000
        assert [one.provider for one in market.offers()] == ["b", "c", "a"]
        (reading,) = market.readings(market.offers()[0].listing_id, minutes=5)
        assert (reading.at_ms, reading.temperature_c) == (5, 50.0)


def test_both_faces_have_the_same_methods() -> None:
    for face, core in ((Client, AsyncClient), (Job, AsyncJob)):
        wanted = {name for name, found in inspect.getmembers(core, inspect.isfunction) if not name.startswith("_")}
        assert wanted <= set(dir(face))


def test_the_package_gives_every_name_it_promises() -> None:
    for name in qubix.__all__:
        assert getattr(qubix, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = qubix.kernel
