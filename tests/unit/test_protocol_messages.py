# SPDX-License-Identifier: Apache-2.0
"""Keys, digests, links of a gateway, receipts."""

from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_protocol import codec, digests, link, receipts
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.envelope import seal
from qubix_protocol.errors import BadSignature, Malformed, NotGenuine, TooLarge
from qubix_protocol.keys import SigningKey, peer_id, public_key_of, verify
from qubix_protocol.messages import (
    DeviceSample,
    Heartbeat,
    InputRef,
    Link,
    Range,
    Report,
    Sample,
    Settlement,
    Telemetry,
)
from qubix_protocol.states import Outcome, Throttle
from qubix_protocol.units import FRAME_BYTES_MAX, LINK_MESSAGE_BYTES_MAX, THROTTLE_MAX

NODE, COORDINATOR, OTHER = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
JOB, ATTEMPT = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"


@given(st.binary(min_size=32, max_size=32))
def test_a_peer_id_contains_the_key(key: bytes) -> None:
    assert public_key_of(peer_id(key)) == key


@given(st.text(max_size=80))
def test_other_text_is_no_peer_id(text: str) -> None:
    with pytest.raises(Malformed):
        public_key_of(text)


def test_verify_is_false_for_odd_lengths_and_other_keys() -> None:
    signature = NODE.sign(b"m")
    assert verify(NODE.public, b"m", signature)
    assert not verify(OTHER.public, b"m", signature)
    assert not verify(NODE.public[:31], b"m", signature)
    assert not verify(NODE.public, b"m", signature[:63])


def test_the_key_s_repr_shows_no_secret() -> None:
    assert NODE.seed.hex() not in repr(NODE)
    assert "seed" not in repr(NODE)


def ref(name: str) -> InputRef:
    return InputRef(name=name, digest=bytes(32), size_bytes=10, meta=ArrayMeta("float32", (1,)))


def test_digests_ignore_order_and_nothing_else() -> None:
    assert digests.of_params({"a": 1, "b": 2}) == digests.of_params({"b": 2, "a": 1})
    assert digests.of_params({"a": 1}) != digests.of_params({"a": 1.0})
    assert digests.of_inputs([ref("a"), ref("b")]) == digests.of_inputs([ref("b"), ref("a")])
    assert digests.of_inputs([ref("a")]) != digests.of_inputs([ref("b")])


def test_a_chain_s_head_commits_to_every_output() -> None:
    def head(outputs: list[bytes]) -> bytes:
        before = digests.ZERO
        for i, output in enumerate(outputs):
            made = Link(
                index=i, units=Range(i, i + 1), output_digest=output, output_bytes=1, claimed_ms=1, predecessor=before
            )
            before = digests.of_link(made)
        return before

    honest = [bytes([i]) * 32 for i in range(3)]
    assert head(honest) == head(list(honest))
    assert len({head(honest), head(honest[::-1]), head(honest[:2]), head([honest[0], *honest])}) == 4


def test_unknown_fields_and_wrong_tags_are_refused() -> None:
    with pytest.raises(Malformed, match="surprise"):
        codec.decode(msgpack.packb({"t": "heartbeat", "attempts": [], "surprise": 1}), Heartbeat)
    with pytest.raises(Malformed):
        codec.decode(msgpack.packb({"t": "report", "attempts": []}), Heartbeat)


def test_readings_may_be_more_than_this_side_knows() -> None:
    """A node that is newer than the coordinator is not refused for what its card tells; nothing is decided by it."""
    reading = {"at_ms": 1, "temperature_c": 50.0, "throttle": ["a_newer_word"], "fan_2_pct": 9.0}
    known = codec.decode(
        msgpack.packb({"t": "telemetry", "samples": [{"device_id": "GPU-1", "sample": reading}]}), Telemetry
    )
    assert known.samples[0].sample == Sample(at_ms=1, temperature_c=50.0, throttle=("a_newer_word",))
    with pytest.raises(Malformed):
        codec.decode(msgpack.packb({"t": "telemetry", "samples": [], "more": 1}), Telemetry)


@pytest.mark.parametrize(
    "changed",
    [
        {"throttle": ["x"] * (THROTTLE_MAX + 1)},
        {"throttle": ["no word"]},
        {"throttle": ["x" * 65]},
        {"memory_busy_pct": 101.0},
        {"foreign_memory_bytes": -1},
        {"xid": 2**53 + 1},
        {"temperature_c": 511.0},
    ],
)
def test_readings_are_bounded(changed: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        codec.decode(msgpack.packb({"at_ms": 1, **changed}), Sample)


def test_the_largest_telemetry_of_a_node_fits_a_frame() -> None:
    full: dict[str, Any] = {field.name: 2**53 for field in msgspec.structs.fields(Sample)}
    full |= dict.fromkeys(("utilisation_pct", "memory_busy_pct", "fan_pct", "temperature_c"), 99.5)
    sample = Sample(**(full | {"throttle": tuple(word.value for word in Throttle)}))
    one = DeviceSample(device_id="GPU-00000000-0000-0000-0000-000000000000", sample=sample)
    assert len(codec.encode(Telemetry(samples=(one,) * 256))) < 0.75 * FRAME_BYTES_MAX


def test_a_link_batch_round_trips_and_is_bounded() -> None:
    items = (
        link.PeerUp(peer_id=NODE.peer_id),
        link.FromPeer(peer_id=NODE.peer_id, frames=(b"x", b"y")),
        link.Gossip(author=NODE.peer_id, topic="t", data=b"z"),
    )
    assert link.decode_gateway(link.encode_gateway(items)) == items
    with pytest.raises(TooLarge):
        link.decode_gateway(bytes(LINK_MESSAGE_BYTES_MAX + 1))
    with pytest.raises(Malformed):
        link.decode_coordinator(link.encode_gateway(items))


def report(**changes: object) -> bytes:
    body = {
        "job_id": JOB,
        "attempt_id": ATTEMPT,
        "fence": 1,
        "outcome": Outcome.COMPLETED,
        "kernel": "matmul",
        "params_digest": bytes(32),
        "inputs_digest": bytes(32),
        "links": 1,
        "units_done": 5,
        "head": b"h" * 32,
        "claimed_ms": 10,
        "started_ms": 1,
        "finished_ms": 2,
        "backend": "cpu",
        "device_id": "cpu-1",
    }
    message = Report(**(body | changes))  # type: ignore[arg-type]
    return seal(message, NODE, network="devnet", audience=COORDINATOR.public, incarnation=1, counter=1, expires_ms=1)


def settlement(raw_report: bytes, key: SigningKey = COORDINATOR) -> bytes:
    message = Settlement(
        network="devnet",
        job_id=JOB,
        attempt_id=ATTEMPT,
        provider=NODE.peer_id,
        report_digest=digests.of_bytes(raw_report) if raw_report else digests.ZERO,
        head=b"h" * 32,
        units_accepted=5,
        units_total=5,
        verdict="ok",
        check_ms=1,
        run_ms=10,
        billed_ms=10,
        rate_qu_per_h=1000,
        paid_qu=1,
        fee_qu=0,
        decided_ms=3,
    )
    return seal(message, key, network="devnet", audience=NODE.public, incarnation=1, counter=1, expires_ms=1)


def receipt(raw_report: bytes, raw_settlement: bytes) -> receipts.Receipt:
    return receipts.Receipt(
        network="devnet",
        provider=NODE.peer_id,
        coordinator_key=COORDINATOR.public,
        report=raw_report,
        settlement=raw_settlement,
    )


def test_a_receipt_with_both_signatures_checks_offline() -> None:
    raw = report()
    found = receipts.check(receipt(raw, settlement(raw)), coordinator_key=COORDINATOR.public)
    assert found.report is not None
    assert found.report.units_done == found.settlement.units_accepted == 5


def test_a_vanished_provider_s_receipt_has_one_half() -> None:
    found = receipts.check(receipt(b"", settlement(b"")), coordinator_key=COORDINATOR.public)
    assert found.report is None


def test_receipts_that_do_not_fit_together_are_refused() -> None:
    raw, later = report(), report(units_done=4)
    cases = [
        (receipt(raw, settlement(later)), COORDINATOR.public, NotGenuine),
        (receipt(raw, settlement(raw, OTHER)), COORDINATOR.public, BadSignature),
        (receipt(raw, settlement(raw)), OTHER.public, NotGenuine),
        (receipt(b"", settlement(raw)), COORDINATOR.public, Malformed),
        (receipt(report(head=b"x" * 32), settlement(report(head=b"x" * 32))), COORDINATOR.public, NotGenuine),
    ]
    for bad, trusted, error in cases:
        with pytest.raises(error):
            receipts.check(bad, coordinator_key=trusted)
