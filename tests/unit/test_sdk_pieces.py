# SPDX-License-Identifier: Apache-2.0
"""Keys and pins on disk, retries, inputs, `where`: the SDK's parts that need no server."""

import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix import files, pins, problems, retry, where
from qubix.blocking import now
from qubix.demo.outcome import outcome_of
from qubix.demo.works import digits, majority, matmul
from qubix.errors import BadUsage, CoordinatorChanged, KeyFileRefused, NotGenuine
from qubix.inputs import ArraySource, FileSource, digest_of, source_of
from qubix.job import verify_receipt
from qubix.settings import Settings, from_mapping
from qubix.transport import Reply
from qubix.wallet import Wallet
from qubix_protocol.api import NetworkView
from qubix_protocol.arrays import from_npy
from qubix_protocol.digests import ZERO, of_bytes
from qubix_protocol.envelope import open_envelope
from qubix_protocol.errors import ProtocolError
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Order
from tests.support.fake_api import FakeApi

PEER = SigningKey(bytes(range(32))).peer_id
OTHER = SigningKey(bytes(range(1, 33))).peer_id


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Keys -----------------------------------------------------------------------------------------------------------------


def test_the_order_key_is_made_once_and_private(tmp_path: Path) -> None:
    first = Wallet.open(tmp_path / "new")
    assert mode_of(first.path) == 0o600
    assert Wallet.open(tmp_path / "new").public_key == first.public_key
    assert "order.key" in repr(first)
    assert first.path.read_bytes().hex() not in repr(first)


@pytest.mark.parametrize("spoil", ["open", "short", "folder"])
def test_a_key_that_is_not_safe_is_refused(tmp_path: Path, spoil: str) -> None:
    path = Wallet.open(tmp_path).path
    if spoil == "open":
        path.chmod(0o644)
    elif spoil == "short":
        path.write_bytes(b"short")
    else:
        path.unlink()
        path.mkdir(mode=0o700)
    with pytest.raises(KeyFileRefused) as caught:
        Wallet.open(tmp_path)
    assert caught.value.remedy


def test_whoever_comes_second_takes_the_key_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert files.create_private(path, b"first")
    assert not files.create_private(path, b"second")
    assert files.read_private(path) == b"first"
    assert os.listdir(tmp_path) == ["key"]


def test_an_order_is_for_one_coordinator_and_soon_over(tmp_path: Path) -> None:
    wallet, coordinator = Wallet.open(tmp_path), SigningKey.generate()
    order = Order(
        idempotency_key="k", kernel="knn", params_digest=ZERO, inputs_digest=ZERO, cap_qu=5, rate_qu_per_h_max=0
    )
    raw = wallet.sign_order(order, network="devnet", coordinator_key=coordinator.public, clock_ms=1_000)
    opened = open_envelope(raw, network="devnet", audience=coordinator.public, now_ms=1_000)
    assert opened.body(Order) == order
    assert opened.header.sender.hex() == wallet.public_key
    with pytest.raises(ProtocolError):
        open_envelope(raw, network="devnet", audience=coordinator.public, now_ms=1_000 + 120_000)


# Pins -----------------------------------------------------------------------------------------------------------------


def network(key: str = "ab" * 32, name: Any = "devnet") -> NetworkView:
    return NetworkView(
        network=name, coordinator_key=key, protocol_version=1, fee_bps=0, gateways=(), regions=(), clock_ms=0
    )


def test_a_coordinator_is_remembered_by_its_address(tmp_path: Path) -> None:
    pins.check(tmp_path, "http://a", network())
    pins.check(tmp_path, "http://a", network())
    pins.check(tmp_path, "http://b", network("cd" * 32))
    with pytest.raises(CoordinatorChanged, match="ababababababab"):
        pins.check(tmp_path, "http://a", network("cd" * 32))
    with pytest.raises(CoordinatorChanged):
        pins.check(tmp_path, "http://a", network(name="main"))
    assert mode_of(tmp_path / pins.PINS_FILE) == 0o600


@pytest.mark.parametrize("content", [b"{", b'{"http://a": 1}', b'{"http://a": {"network": "\xff"}}'])
def test_pins_that_cannot_be_read_are_not_forgotten_silently(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / pins.PINS_FILE
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileRefused, match="cannot be read"):
        pins.check(tmp_path, "http://a", network())


def test_an_answer_that_is_no_text_is_told_by_its_status() -> None:
    told = problems.error_of(Reply(status=502, headers={}, content=b'{"title": "\xff\xfe"}'), "GET /offers")
    assert "502" in str(told)


def test_a_spoilt_pin_file_is_not_passed_over(tmp_path: Path) -> None:
    files.replace_private(tmp_path / pins.PINS_FILE, b"{")
    with pytest.raises(KeyFileRefused):
        pins.check(tmp_path, "http://a", network())


# Retries --------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.floats(0, 1, exclude_max=True))
def test_waits_grow_within_bounds(tries: int, draw: float) -> None:
    assert retry.FIRST_S / 2 <= retry.delay_s(tries, draw) <= retry.LONGEST_S
    assert retry.delay_s(tries + 1, draw) >= retry.delay_s(tries, draw)


def test_what_the_server_asks_is_heard_within_reason() -> None:
    assert retry.delay_s(1, 0.5, "3") == 3.0
    assert retry.delay_s(1, 0.5, "86400") == 30.0
    assert retry.delay_s(1, 0.5, "Wed, 21 Oct 2026 07:28:00 GMT") < 1


def test_only_what_may_be_repeated_is_repeated() -> None:
    assert retry.may_repeat(503, repeatable=True)
    assert not retry.may_repeat(503, repeatable=False)
    assert retry.may_repeat(429, repeatable=False)
    assert not retry.may_repeat(500, repeatable=True)


async def suspends() -> None:
    import asyncio

    await asyncio.sleep(1)


def test_a_blocking_call_never_waits_for_a_loop_that_is_not_there() -> None:
    with pytest.raises(RuntimeError):
        now(suspends())


# Inputs ---------------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from([np.float32, np.int64, np.bool_, np.uint8]),
    st.lists(st.integers(0, 4), min_size=0, max_size=3),
    st.booleans(),
)
def test_an_array_is_sent_as_numpy_would_save_it(kind: type, shape: list[int], fortran: bool) -> None:
    array = np.ones(shape, kind)
    source = ArraySource("a", np.asfortranarray(array) if fortran else array)
    whole = source.read(0, source.size_bytes)
    np.testing.assert_array_equal(from_npy(whole), array)
    assert whole == b"".join(source.read(at, min(at + 7, len(whole))) for at in range(0, len(whole), 7))
    assert digest_of(source) == of_bytes(whole)


def test_a_file_is_read_in_pieces(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5))
    source = source_of("a", str(tmp_path / "a.npy"))
    assert isinstance(source, FileSource)
    assert source.read(0, source.size_bytes) == (tmp_path / "a.npy").read_bytes()


def test_files_that_cannot_be_inputs_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(np.ones((2, 2))))
    np.save(tmp_path / "cut.npy", np.ones(100))
    os.truncate(tmp_path / "cut.npy", 200)
    (tmp_path / "text.npy").write_text("no array")
    for name in ("objects", "fortran", "cut", "text", "missing"):
        with pytest.raises(BadUsage) as caught:
            source_of("a", tmp_path / f"{name}.npy")
        assert caught.value.field == "a"


# where= ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", where.Where()),
        (f"provider={PEER}", where.Where(provider=PEER)),
        ("price<=500", where.Where(rate_qu_per_h_max=500)),
        (f"price<500 and provider = {PEER}", where.Where(provider=PEER, rate_qu_per_h_max=499)),
        ("price<=900 price<=1_000", where.Where(rate_qu_per_h_max=900)),
        ("price<0.5", where.Where(rate_qu_per_h_max=0)),
        ("gpu_ram>=8", where.Where(line="gpu_ram>=8")),
        (" price>5 price<=9", where.Where(line="price>5 price<=9", rate_qu_per_h_max=9)),
        ("region in [EU, US]", where.Where(line="region in [EU, US]")),
        (f"provider={PEER} or price<=1", where.Where(line=f"provider={PEER} or price<=1")),
        ("not price<=1", where.Where(line="not price<=1")),
    ],
)
def test_what_can_be_honoured(text: str, wanted: where.Where) -> None:
    assert where.parse(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "gpu_rm>=8",
        "price<=cheap",
        "price<0",
        "region in [EU,",
        "provider=x",
        f"provider={PEER} provider={OTHER}",
        "gpu_ram>=8 " * 200,
    ],
)
def test_what_cannot_be_honoured_is_refused(text: str) -> None:
    with pytest.raises(BadUsage):
        where.parse(text)


# Settings -------------------------------------------------------------------------------------------------------------


def test_settings() -> None:
    assert from_mapping({}).url == "http://127.0.0.1:8600"
    assert from_mapping({"QUBIX_HTTP_PORT": "9000"}).url == "http://127.0.0.1:9000"
    found = from_mapping({"QUBIX_COORDINATOR_URL": "https://market.example/", "QUBIX_TOKEN": "secret"})
    assert (found.url, found.is_local) == ("https://market.example", False)
    assert "secret" not in repr(found)
    for bad in ({"QUBIX_COORDINATOR_URL": "ftp://x"}, {"QUBIX_TRIES_MAX": "0"}):
        with pytest.raises(BadUsage) as caught:
            from_mapping(bad)
        assert caught.value.field in bad
    assert Settings(coordinator_url="http://[::1]:1").is_local


# Receipts and the demonstration ---------------------------------------------------------------------------------------


def test_a_receipt_is_of_its_job_and_unchanged() -> None:
    api = FakeApi()
    with api:
        job = api.add_job()
        view = api.settle(job.job_id, [(0, 4, {"c": np.ones((4, 2), np.float32)})])
        (raw,) = api.receipts[job.job_id]
    receipt = verify_receipt(raw, coordinator_key=api.key.public, job_id=job.job_id)
    assert receipt.settlement.paid_qu == 27
    with pytest.raises(NotGenuine):
        verify_receipt(raw, coordinator_key=api.key.public, job_id="another")
    for half in ("report", "settlement"):
        flipped = bytearray.fromhex(getattr(raw, half))
        flipped[len(flipped) // 2] ^= 1
        changed = msgspec.structs.replace(raw, **{half: flipped.hex()})
        with pytest.raises(NotGenuine):
            verify_receipt(changed, coordinator_key=api.key.public, job_id=job.job_id)
    outcome = outcome_of(view, [receipt], {}, 1.0)
    assert (outcome.held_qu, outcome.settled_qu, outcome.fee_qu, outcome.returned_qu) == (100, 27, 1, 72)
    assert outcome.check_share_pct == 2.0
    for spoilt in (view, msgspec.structs.replace(view, returned_qu=71)):
        with pytest.raises(NotGenuine):
            outcome_of(spoilt, [] if spoilt is view else [receipt], {}, 1.0)


def test_the_demonstration_finds_wrong_results() -> None:
    work = matmul(64)
    right = work.given["a"] @ work.given["b"]
    assert work.find({"c": right})["largest error"] < 1e-3
    with pytest.raises(NotGenuine):
        work.find({"c": np.zeros_like(right)})
    with pytest.raises(NotGenuine):
        work.find({"c": np.full_like(right, np.nan)})
    told = digits()
    with pytest.raises(NotGenuine):
        told.find({"indices": np.zeros((len(told.given["queries"]), 5), np.int64)})


def test_majority() -> None:
    votes = np.array([[1, 1, 2], [3, 2, 2], [3, 2, 1]])
    np.testing.assert_array_equal(majority(votes), [1, 2, 1])
