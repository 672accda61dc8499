# SPDX-License-Identifier: Apache-2.0
"""The journal: whatever a crash leaves of its tail, what was whole is read, and nothing else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_node.errors import JournalDamaged
from qubix_node.jobs import journal as journals
from qubix_node.jobs.journal import MAGIC, Done, Journal, LinkAcknowledged, Made, Record, Reported, Taken
from qubix_node.jobs.work import Chain, Work, restored
from qubix_protocol.messages import Assign, Range, Report
from qubix_protocol.states import Outcome


def attempt_id(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012d}"


def assign(number: int) -> Assign:
    return Assign(
        job_id=attempt_id(900 + number),
        attempt_id=attempt_id(number),
        fence=number + 1,
        device_id="cpu-1",
        backend="cpu",
        kernel="matmul",
        kernel_version=1,
        params={"k": 3},
        inputs=(),
        units_total=100,
        ranges=(Range(0, 100),),
        chunk_units=10,
        time_limit_ms=60_000,
        rate_qu_per_h=100,
        offer_digest=bytes(32),
    )


def links(number: int, count: int) -> list[Made]:
    chain, made = Chain(), []
    for index in range(count):
        link = chain.next(Range(index * 10, index * 10 + 10), bytes([index]) * 32, 100 + index, 250.4 * (index + 1))
        chain.add(link)
        made.append(Made(attempt_id=attempt_id(number), link=link, fraction=chain.units / 100, elapsed_ms=index))
    return made


def report(number: int) -> Report:
    return Report(
        job_id=attempt_id(900 + number),
        attempt_id=attempt_id(number),
        fence=number + 1,
        outcome=Outcome.COMPLETED,
        kernel="matmul",
        params_digest=bytes(32),
        inputs_digest=bytes(32),
        links=2,
        units_done=20,
        head=bytes(32),
        claimed_ms=500,
        started_ms=1,
        finished_ms=2,
        backend="cpu",
        device_id="cpu-1",
    )


RECORDS: list[Record] = [
    Taken(assign=assign(0), started_ms=1),
    *links(0, 2),
    LinkAcknowledged(attempt_id=attempt_id(0), index=0),
    Taken(assign=assign(1), started_ms=2),
    Reported(report=report(0)),
    *links(1, 3),
    Done(attempt_id=attempt_id(1)),
]
WHOLE = MAGIC + b"".join(map(journals.encode, RECORDS))


def ends() -> list[int]:
    """Where each record ends in `WHOLE`."""
    found, at = [], len(MAGIC)
    for record in RECORDS:
        at += len(journals.encode(record))
        found.append(at)
    return found


def test_what_was_written_is_read() -> None:
    assert journals.read(WHOLE) == RECORDS


@given(st.integers(0, len(WHOLE)))
def test_a_torn_tail_loses_only_the_torn_record(cut: int) -> None:
    whole = sum(end <= cut for end in ends())
    assert journals.read(WHOLE[:cut]) == RECORDS[:whole]


@given(st.integers(len(MAGIC), len(WHOLE) - 1), st.integers(1, 255))
def test_a_damaged_byte_ends_the_reading_and_invents_nothing(at: int, flip: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[at] ^= flip
    sound = sum(end <= at for end in ends())
    assert journals.read(bytes(damaged)) == RECORDS[:sound]


@given(st.binary(max_size=200))
def test_rubbish_after_the_last_record_is_passed_over(rubbish: bytes) -> None:
    found = journals.read(WHOLE + rubbish)
    assert found[: len(RECORDS)] == RECORDS


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"dear diary")
    with pytest.raises(JournalDamaged):
        Journal.open(path)
    assert path.read_bytes() == b"dear diary"


def test_folding_keeps_what_is_open() -> None:
    saved = journals.fold(RECORDS)
    assert list(saved) == [attempt_id(0)]
    one = saved[attempt_id(0)]
    assert (len(one.links), one.acknowledged, one.report) == (2, {0}, report(0))


@pytest.mark.trio
async def test_a_reopened_journal_is_compact_and_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal.open(path)
    for record in RECORDS:
        await journal.append(record)
    journal.close()
    with path.open("ab") as file:
        file.write(b"\0\0\1\0torn")
    before = path.stat().st_size
    again = Journal.open(path)
    assert again.saved == journals.fold(RECORDS)
    assert path.stat().st_size < before
    await again.append(Done(attempt_id=attempt_id(0)))
    again.close()
    last = Journal.open(path)
    last.close()
    assert last.saved == {}
    assert path.read_bytes() == MAGIC


def test_a_restored_attempt_has_the_chain_it_had() -> None:
    saved = journals.fold([Taken(assign=assign(1), started_ms=7), *links(1, 3)])[attempt_id(1)]
    chain = Chain()
    for made in links(1, 3):
        chain.add(made.link)
    work: Work = restored(saved, now_ms=50)
    assert work.chain == chain
    assert work.chain.claimed_ms == round(250.4 * 3)
    assert work.started_ms == 7
