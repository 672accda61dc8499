# SPDX-License-Identifier: Apache-2.0
"""B3, M3, M6, C1: a job's receipt proves itself offline, and nothing in it can be changed, left out or borrowed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix import receipts
from qubix.errors import BadUsage, NotGenuine
from qubix_protocol import chain, codec, job_receipt
from qubix_protocol.arrays import pack_arrays
from qubix_protocol.chain import End, Header
from qubix_protocol.envelope import read_evidence
from qubix_protocol.errors import ProtocolError
from qubix_protocol.job_receipt import STATEMENTS, AttemptSettled, JobOpened
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Settlement
from qubix_protocol.states import JobState
from tests.support.receipt_chain import HOLD_QU, Story

RESULT = {"c": np.arange(16, dtype="float32").reshape(4, 4)}


def content(start: int, stop: int) -> bytes:
    return pack_arrays({"c": RESULT["c"][start:stop]})


def told() -> Story:
    """Two attempts: the first one's second chunk is wrong, the next makes the rest."""
    story = Story().opened()
    story.attempt([(0, 2, content(0, 2)), (2, 4, b"wrong")], bad=1)
    return story.attempt([(2, 4, content(2, 4))]).closed()


TOLD = told()
KEYS = [TOLD.coordinator.public]


def holds(entries: list[bytes], end: bytes) -> bool:
    try:
        job_receipt.prove(entries, end, coordinator_keys=KEYS)
    except ProtocolError:
        return False
    return True


def test_a_receipt_proves_who_signed_what_and_does_the_sums() -> None:
    receipt = receipts.verify(TOLD.file, TOLD.coordinator.public.hex(), order_key=TOLD.consumer.public)
    proof = receipt.proof
    assert (proof.job_id, proof.entries, proof.order_key) == (TOLD.job_id, len(TOLD.entries), TOLD.consumer.public)
    assert [len(one.parts) for one in proof.attempts] == [2, 1]
    assert [(p.link.units.start, p.link.units.stop) for p in proof.paid_parts()] == [(0, 2), (2, 4)]
    assert proof.closed is not None
    assert (proof.closed.state, proof.closed.paid_qu, proof.closed.fee_qu) == (JobState.SETTLED, 41, 1)
    assert proof.closed.paid_qu + proof.closed.fee_qu + proof.closed.returned_qu == HOLD_QU
    words = "\n".join(receipt.words())
    assert TOLD.coordinator.public.hex() in words
    assert TOLD.consumer.public.hex() in words
    assert TOLD.provider.peer_id in words


def test_the_checks_randomness_hangs_on_what_was_committed_before() -> None:
    """C1: another output, another seed; what commits to it stands before what was drawn."""
    first, second = TOLD_PROOF.attempts
    assert first.seed is not None
    assert second.seed is not None
    assert first.seed == job_receipt.check_seed(first.terms.attempt_id, first.head, bytes([7] * 32))
    assert first.seed != job_receipt.check_seed(first.terms.attempt_id, second.head, bytes([7] * 32))
    names = [type(one).__struct_config__.tag for one in TOLD.statements]
    once, again = "assigned linked linked reported ended", "assigned linked reported ended"
    assert " ".join(names) == f"opened {once} checked settled {again} checked settled closed"


TOLD_PROOF = job_receipt.prove(TOLD.entries, TOLD.end, coordinator_keys=KEYS)


# What somebody without the keys can do ------------------------------------------------------------------------------


def changes(value: Any) -> Iterator[Any]:
    """Every smallest change of a plain value: of each of its parts, and of how many there are."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield value + 1
        if value > 0:
            yield value - 1
    elif isinstance(value, bytes):
        yield bytes([value[0] ^ 1]) + value[1:] if value else b"\1"
    elif isinstance(value, str):
        yield value[:-1] + ("1" if value[-1:] == "0" else "0")
    elif value is None:
        yield 1
    elif isinstance(value, list):
        yield from ([*value[:at], other, *value[at + 1 :]] for at, one in enumerate(value) for other in changes(one))
        yield from ([*value[:at], *value[at + 1 :]] for at in range(len(value)))
        yield from ([*value[:at], value[at], *value[at:]] for at in range(len(value)))
    else:
        yield from ({**value, name: other} for name, one in value.items() for other in changes(one))
        yield from ({key: one for key, one in value.items() if key != name} for name in value)


def packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def unpacked(raw: bytes) -> Any:
    return codec.unpack(raw, limit_bytes=len(raw))


def forged(raw: bytes) -> Iterator[bytes]:
    """An entry or an end with one field changed: of the header, of the body, or the signature."""
    signed, signature = unpacked(raw)
    header = unpacked(signed)
    yield from (packed([packed(other), signature]) for other in changes(header))
    yield from (packed(other) for other in changes([signed, signature]))
    if isinstance(header[-1], bytes) and len(header) == 10:
        for other in changes(unpacked(header[-1])):
            yield packed([packed([*header[:-1], packed(other)]), signature])


@pytest.mark.parametrize("at", range(len(TOLD.entries)))
def test_no_field_of_an_entry_can_be_changed(at: int) -> None:
    count = 0
    for other in forged(TOLD.entries[at]):
        assert other != TOLD.entries[at]
        assert not holds([*TOLD.entries[:at], other, *TOLD.entries[at + 1 :]], TOLD.end)
        count += 1
    assert count > 20


def test_no_field_of_the_end_can_be_changed() -> None:
    assert sum(not holds(TOLD.entries, other) for other in forged(TOLD.end)) == len(list(forged(TOLD.end))) > 10


@pytest.mark.parametrize("at", range(len(TOLD.entries)))
def test_no_entry_can_be_removed_doubled_or_moved(at: int) -> None:
    entries = TOLD.entries
    assert not holds([*entries[:at], *entries[at + 1 :]], TOLD.end)
    assert not holds([*entries[:at], entries[at], *entries[at:]], TOLD.end)
    for other in range(len(entries)):
        if other != at:
            swapped = list(entries)
            swapped[at], swapped[other] = entries[other], entries[at]
            assert not holds(swapped, TOLD.end)


def test_no_entry_or_end_of_another_job_fits() -> None:
    other = Story(coordinator=TOLD.coordinator, consumer=TOLD.consumer, provider=TOLD.provider).opened()
    other.attempt([(0, 2, content(0, 2)), (2, 4, b"wrong")], bad=1).attempt([(2, 4, content(2, 4))]).closed()
    assert holds(other.entries, other.end)
    for at in range(len(TOLD.entries)):
        assert not holds([*TOLD.entries[:at], other.entries[at], *TOLD.entries[at + 1 :]], TOLD.end)
    assert not holds(TOLD.entries, other.end)
    assert not holds(other.entries, TOLD.end)


def test_an_older_end_does_not_hide_what_came_later() -> None:
    """A shorter chain holds only with the end that was signed for it, and says that the job was not over."""
    ends = []
    story = Story(coordinator=TOLD.coordinator).opened()
    ends.append((list(story.entries), story.end))
    story.attempt([(0, 4, content(0, 4))])
    ends.append((list(story.entries), story.end))
    story.closed()
    for entries, end in ends:
        proof = job_receipt.prove(entries, end, coordinator_keys=KEYS)
        assert proof.closed is None
        assert not holds(story.entries, end)
        assert not holds(entries, story.end)
    assert "NOT over" in receipts.verify(chain.to_file(*ends[1]), KEYS).words()[-1]


def test_what_is_owed_and_not_paid_yet_was_checked() -> None:
    """As while a delivered job waits for the consumer's word."""
    whole = Story(coordinator=TOLD.coordinator).opened().attempt([(0, 4, content(0, 4))])
    entries = whole.entries[:-1]
    file = chain.to_file(entries, chain.seal_end(whole.chain, entries, TOLD.coordinator, whole.at_ms))
    receipt = receipts.verify(file, KEYS)
    owed_qu = job_receipt.prove(whole.entries, whole.end, coordinator_keys=KEYS).attempts[0].owed_qu
    assert receipt.proof.owed_qu == owed_qu > 0
    assert any(f"{owed_qu:,} QU were owed, and not paid yet" in line for line in receipt.words())
    assert not any("waited for the check" in line for line in receipt.words())


@given(st.data())
def test_no_byte_of_the_file_can_be_changed(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(TOLD.file) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda one: one != TOLD.file[at]))
    with pytest.raises(NotGenuine):
        receipts.verify(TOLD.file[:at] + bytes([byte]) + TOLD.file[at + 1 :], KEYS)


@given(st.integers(0, len(TOLD.file) - 1))
def test_no_file_can_be_cut(length: int) -> None:
    with pytest.raises(NotGenuine):
        receipts.verify(TOLD.file[:length], KEYS)


@pytest.mark.parametrize("more", [b"\n", b" ", b"x", b"end AAAA\n", TOLD.file])
def test_nothing_can_follow(more: bytes) -> None:
    with pytest.raises(NotGenuine):
        receipts.verify(TOLD.file + more, KEYS)


def test_only_trusted_keys_count() -> None:
    stranger = SigningKey.generate().public
    with pytest.raises(NotGenuine, match="no key that you trust"):
        receipts.verify(TOLD.file, stranger)
    assert receipts.verify(TOLD.file, [stranger, TOLD.coordinator.public.hex()]).closed
    with pytest.raises(NotGenuine, match="not by"):
        receipts.verify(TOLD.file, KEYS, order_key=stranger)
    with pytest.raises(BadUsage):
        receipts.verify(TOLD.file, "no key")


def test_a_job_without_an_order_says_so() -> None:
    """M6: the API takes jobs without a signed order; then nothing in the receipt is the consumer's."""
    story = Story(consumer=None).opened().attempt([(0, 4, content(0, 4))]).closed()
    receipt = receipts.verify(story.file, story.coordinator.public)
    assert receipt.proof.order_key is None
    assert any("nothing here is signed by the consumer" in line for line in receipt.words())
    with pytest.raises(NotGenuine, match="without a signed order"):
        receipts.verify(story.file, story.coordinator.public, order_key=SigningKey.generate().public)


# What the coordinator itself cannot do ------------------------------------------------------------------------------

WORD_ALONE = {
    "opened": {"kernel_version", "outputs", "provider", "hands_max", "deadline_ms", "has_verifier"},
    "assigned": {"attempt_id", "device_id", "model", "backend", "offer_digest", "fee_bps", "forecast_ms"}
    | {"time_limit_ms"},
    "linked": {"observed_ms"},
    "reported": set(),
    "ended": {"reason", "detail"},
    "checked": {"entropy"},
    "settled": set(),
    "closed": {"reason", "detail"},
}
"""What a receipt has by the coordinator's word alone (docs/receipts.md says so); everything else follows from what
others signed, or from arithmetic. A change of `outputs` names other outputs, which `check_result` then misses."""


def resigned(story: Story, at: int, body: Any) -> tuple[list[bytes], bytes]:
    """The chain as a coordinator would write it that lies in one entry: every signature of its own is right."""
    kept = replace(story, entries=[], statements=[], at_ms=0)
    for index, statement in enumerate(story.statements):
        kept.say(codec.convert(body, type(statement)) if index == at else statement)
    return kept.entries, kept.end


@pytest.mark.parametrize("at", range(len(TOLD.statements)))
def test_the_coordinator_cannot_lie_about_what_others_signed_or_what_follows(at: int) -> None:
    statement = TOLD.statements[at]
    name = str(type(statement).__struct_config__.tag)
    body = unpacked(codec.encode(statement))
    found = 0
    for field in body.keys() - {"t"} - WORD_ALONE[name]:
        for other in changes(body[field]):
            try:
                entries, end = resigned(TOLD, at, {**body, field: other})
            except ProtocolError:
                continue  # not even a statement
            assert not holds(entries, end), (name, field, other)
            found += 1
    assert found > 0


def test_a_signed_settlement_that_does_not_follow_is_refused() -> None:
    """M1, M2: units, time, rate, amounts, provider, head and report are all done again from what the node signed."""
    at = next(at for at, one in enumerate(TOLD.statements) if isinstance(one, AttemptSettled))
    settled = TOLD.statements[at]
    assert isinstance(settled, AttemptSettled)
    said = read_evidence(settled.settlement, network="devnet", sender=KEYS[0]).body(Settlement)
    plain = unpacked(codec.encode(said))
    for field in plain.keys() - {"t", "verdict_detail", "check_ms", "decided_ms"}:
        for other in changes(plain[field]):
            try:
                lie = codec.convert({**plain, field: other}, Settlement)
            except ProtocolError:
                continue
            raw = TOLD.sealed(TOLD.coordinator, lie)
            body = unpacked(codec.encode(msgspec.structs.replace(settled, settlement=raw)))
            assert not holds(*resigned(TOLD, at, body)), (field, other)
    assert not holds(*resigned(TOLD, at, _settled_as(settled, said, "accepted")))
    assert not holds(*resigned(TOLD, at, _settled_as(settled, said, "unchecked")))


def _settled_as(settled: AttemptSettled, said: Settlement, verdict: str) -> Any:
    raw = TOLD.sealed(TOLD.coordinator, msgspec.structs.replace(said, verdict=verdict))
    return unpacked(codec.encode(msgspec.structs.replace(settled, settlement=raw)))


def test_every_kind_of_entry_was_lied_about() -> None:
    assert {str(type(one).__struct_config__.tag) for one in TOLD.statements} == STATEMENTS.keys() == WORD_ALONE.keys()


@pytest.mark.parametrize(
    "lie",
    [
        lambda story: story.attempt([(0, 2, b"again")], ranges=[(0, 2)]),
        lambda story: story.attempt([(4, 6, b"beyond")], ranges=[(4, 6)]),
    ],
    ids=["a unit that was paid before", "a unit beyond the job's last"],
)
def test_no_unit_is_paid_twice(lie: Callable[[Story], Story]) -> None:
    """M3."""
    story = Story(coordinator=TOLD.coordinator).opened().attempt([(0, 2, content(0, 2))], ranges=[(0, 4)])
    assert holds(story.entries, story.end)
    lie(story)
    assert not holds(story.entries, story.end)


# The result that was paid -------------------------------------------------------------------------------------------


def test_the_result_that_was_paid_is_told_from_any_other() -> None:
    receipt = receipts.verify(TOLD.file, KEYS)
    receipt.check_result(RESULT)
    other = RESULT["c"].copy()
    other[3, 3] += 1
    for wrong in ({"c": other}, {"c": RESULT["c"][:3]}, {"d": RESULT["c"]}, {"c": RESULT["c"].astype("f8")}, {}):
        with pytest.raises(NotGenuine):
            receipt.check_result(wrong)


def test_several_outputs_are_found_in_whatever_order_they_were_packed() -> None:
    arrays = {"d": np.ones((4, 2), "float32"), "c": RESULT["c"]}
    story = Story().opened()
    first = story.statements[0]
    assert isinstance(first, JobOpened)
    opened = msgspec.structs.replace(
        first,
        outputs=tuple(
            job_receipt.Output(name=name, meta=job_receipt.ArrayMeta.of(arrays[name])) for name in sorted(arrays)
        ),
    )
    story = replace(story, entries=[], statements=[])
    story.params_digest, story.inputs_digest = opened.params_digest, opened.inputs_digest
    story.say(opened)
    story.attempt([(0, 4, pack_arrays(arrays))]).closed()
    receipts.verify(story.file, story.coordinator.public).check_result(arrays)


def test_headers_have_no_field_without_a_forgery() -> None:
    assert (len(Header.__struct_fields__), len(End.__struct_fields__)) == (10, 8)
