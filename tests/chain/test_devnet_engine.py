# SPDX-License-Identifier: Apache-2.0
"""The devnet's ledger rules: each of the network's own, and what holds whatever happens."""

import hashlib
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix_chain.contracts import AMOUNT_QU_MAX, QUTIL, QX, contract_id, send_to_many
from qubix_chain.devnet import engine, rules
from qubix_chain.devnet.engine import Chain, Tick
from qubix_chain.devnet.rules import BURNING, QU_TRANSFER, Drop, Entity, Event, Tx
from qubix_chain.identity import NULL

ANN, BOB, CAT, NEW = (bytes([n]) * 32 for n in (1, 2, 3, 9))
FIRST = 1000


def chain(slots: int = rules.TICK_SLOTS, **balances: int) -> Chain:
    keys = {"ann": ANN, "bob": BOB, "cat": CAT}
    return engine.genesis({keys[who]: qu for who, qu in balances.items()}, tick=FIRST, epoch=5, slots=slots)


def tx(source: bytes, to: bytes, amount: int, tick: int, *, input_type: int = 0, payload: bytes = b"") -> Tx:
    said = repr((source, to, amount, tick, input_type, payload)).encode()
    name = "".join(chr(ord("a") + byte % 26) for byte in hashlib.sha512(said).digest()[:60])
    return Tx(name, source, to, amount, tick, input_type, payload, said)


def run_to(made: Chain, tick: int) -> Tick:
    """Steps until that tick ran."""
    while True:
        found = made.step(0)
        if found is not None and found.number == tick:
            return found


def pay(made: Chain, one: Tx) -> Tick:
    assert made.submit(one).dropped is None
    return run_to(made, one.tick)


# Scheduling and the pool


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (-1, Drop.LATE),
        (0, Drop.LATE),
        (2, Drop.LATE),
        (3, None),
        (2666, None),
        (2667, Drop.TOO_FAR),
    ],
)
def test_a_list_is_fixed_two_ticks_before_and_the_window_is_2666(ahead: int, expected: Drop | None) -> None:
    assert chain(ann=10).submit(tx(ANN, BOB, 1, FIRST + ahead)).dropped == expected


def test_a_transaction_runs_at_its_tick_alone() -> None:
    made = chain(ann=10)
    one = tx(ANN, BOB, 4, FIRST + 5)
    made.submit(one)
    ticks = [made.step(0) for _ in range(8)]
    assert [found.number for found in ticks if found and found.done] == [FIRST + 5]
    assert made.entities[BOB].balance == 4


@pytest.mark.parametrize("source", [contract_id(QX), contract_id(28), NULL])
def test_a_contract_address_sends_nothing(source: bytes) -> None:
    made = chain(ann=10)
    made.entities[source] = Entity(incoming=5)
    assert made.submit(tx(source, BOB, 1, FIRST + 3)).dropped is Drop.CONTRACT
    assert rules.execute(rules.Book(made.entities, FIRST), tx(source, BOB, 1, FIRST)).money_flew is (source == NULL)


def test_who_has_nothing_sends_nothing_not_even_zero() -> None:
    made = chain(ann=10)
    pay(made, tx(ANN, BOB, 10, FIRST + 3))
    assert made.submit(tx(ANN, BOB, 0, made.tick + 3)).dropped is Drop.NO_BALANCE
    assert made.submit(tx(NEW, BOB, 0, made.tick + 3)).dropped is Drop.NO_BALANCE


def test_the_same_transaction_twice_runs_once() -> None:
    made = chain(ann=10)
    one = tx(ANN, BOB, 4, FIRST + 3)
    made.submit(one)
    assert made.submit(one).dropped is Drop.DUPLICATE
    run_to(made, one.tick)
    assert made.submit(one).dropped is Drop.LATE
    assert made.entities[BOB].balance == 4


def test_a_full_tick_keeps_the_highest_priorities_and_lists_by_arrival() -> None:
    made = chain(slots=2, ann=10, bob=1000, cat=100)
    low, high, middle = (tx(who, NEW, 1, FIRST + 3) for who in (ANN, BOB, CAT))
    assert made.submit(low).pending is not None
    made.submit(high)
    assert made.submit(middle).pushed_out == low.id
    assert made.submit(tx(ANN, NEW, 2, FIRST + 3)).dropped is Drop.FULL
    assert [one.tx.id for one in run_to(made, FIRST + 3).done] == [high.id, middle.id]


def test_priority_is_balance_times_rest() -> None:
    assert rules.priority(Entity(incoming=10, incoming_tick=90), 100) == 10 * 11
    spent = Entity(incoming=10, outgoing=4, outgoing_count=1, incoming_tick=20, outgoing_tick=98)
    assert rules.priority(spent, 100) == 6 * 3


# Execution


def test_money_moves_in_the_list_s_order_and_what_fails_stays_listed() -> None:
    made = chain(ann=10, bob=1)
    first, second, third = tx(ANN, BOB, 7, FIRST + 3), tx(ANN, BOB, 4, FIRST + 3), tx(BOB, CAT, 8, FIRST + 3)
    for one in (first, second, third):
        made.submit(one)
    done = run_to(made, FIRST + 3).done
    assert [(one.tx.id, one.outcome.money_flew) for one in done] == [
        (first.id, True),
        (second.id, False),
        (third.id, True),
    ]
    assert [len(one.outcome.events) for one in done] == [1, 0, 1]
    assert {who: made.entities[who].balance for who in (ANN, BOB, CAT)} == {ANN: 3, BOB: 0, CAT: 8}


def test_amount_zero_never_flies_and_counts() -> None:
    made = chain(ann=10)
    (done,) = pay(made, tx(ANN, NEW, 0, FIRST + 3)).done
    assert done.outcome == rules.Outcome(False, ())
    assert made.entities[ANN].outgoing_count == made.entities[NEW].incoming_count == 1


def test_totals_counts_and_ticks_are_kept() -> None:
    made = chain(ann=10)
    pay(made, tx(ANN, NEW, 3, FIRST + 3))
    pay(made, tx(ANN, NEW, 4, FIRST + 9))
    assert made.entities[NEW] == Entity(incoming=7, incoming_count=2, incoming_tick=FIRST + 9)
    assert made.entities[ANN] == Entity(
        incoming=10, incoming_count=1, incoming_tick=FIRST, outgoing=7, outgoing_count=2, outgoing_tick=FIRST + 9
    )


def test_what_goes_to_nobody_is_destroyed() -> None:
    made = chain(ann=10)
    (done,) = pay(made, tx(ANN, NULL, 4, FIRST + 3)).done
    assert done.outcome.money_flew
    assert (made.burned, made.supply, NULL in made.entities) == (4, 6, False)


def test_what_a_contract_does_not_know_it_keeps() -> None:
    made = chain(ann=10)
    (done,) = pay(made, tx(ANN, contract_id(QX), 4, FIRST + 3, input_type=999)).done
    assert done.outcome.money_flew
    assert made.entities[contract_id(QX)].balance == 4


def test_send_to_many_pays_each_and_burns_its_fee() -> None:
    made = chain(ann=100)
    payload, total = send_to_many([(BOB, 5), (NEW, 7), (BOB, 1)])
    qutil = contract_id(QUTIL)
    (done,) = pay(made, tx(ANN, qutil, total, FIRST + 3, input_type=1, payload=payload)).done
    assert done.outcome.money_flew
    assert done.outcome.events == (
        Event(QU_TRANSFER, ANN, qutil, total),
        Event(QU_TRANSFER, qutil, BOB, 5),
        Event(QU_TRANSFER, qutil, NEW, 7),
        Event(QU_TRANSFER, qutil, BOB, 1),
        Event(BURNING, qutil, NULL, 10),
    )
    assert [made.entities[who].balance for who in (ANN, BOB, NEW, qutil)] == [100 - total, 6, 7, 0]
    assert made.burned == 10


@pytest.mark.parametrize("off_by", [-1, 1])
def test_send_to_many_gives_everything_back_unless_the_sum_is_exact(off_by: int) -> None:
    made = chain(ann=100)
    payload, total = send_to_many([(BOB, 5)])
    pay(made, tx(ANN, contract_id(QUTIL), total + off_by, FIRST + 3, input_type=1, payload=payload))
    assert made.entities[ANN].balance == 100
    assert BOB not in made.entities
    assert made.burned == 0


@pytest.mark.parametrize("amount", [-5, AMOUNT_QU_MAX])
def test_send_to_many_refuses_amounts_out_of_range(amount: int) -> None:
    made = chain(ann=AMOUNT_QU_MAX)
    payload = BOB + bytes(24 * 32) + amount.to_bytes(8, "little", signed=True) + bytes(24 * 8)
    pay(
        made, tx(ANN, contract_id(QUTIL), max(amount + 10, 0) % AMOUNT_QU_MAX, FIRST + 3, input_type=1, payload=payload)
    )
    assert made.entities[ANN].balance == AMOUNT_QU_MAX


def test_a_short_payload_is_read_as_zeros() -> None:
    made = chain(ann=100)
    pay(made, tx(ANN, contract_id(QUTIL), 10, FIRST + 3, input_type=1, payload=b""))
    assert (made.entities[ANN].balance, made.burned) == (90, 10)


# Empty ticks and epochs


def test_an_empty_tick_kills_what_it_had_listed_for_ever() -> None:
    made = chain(ann=10)
    one = tx(ANN, BOB, 4, FIRST + 3)
    made.submit(one)
    run_to(made, FIRST + 2)
    found = made.step(0, empty=True)
    assert found is not None
    assert (found.empty, found.done, found.dead) == (True, (), (one.id,))
    assert made.submit(one).dropped is Drop.LATE
    assert made.entities[ANN].balance == 10


def test_an_epoch_s_end_jumps_pauses_and_loses_what_pends() -> None:
    made = chain(ann=10)
    run_to(made, FIRST + 1)
    made.submit(tx(ANN, BOB, 1, FIRST + 20))
    made.switch_epoch(jump=500, pause=3)
    assert (made.tick, made.epoch, made.initial_tick, made.pending) == (FIRST + 502, 6, FIRST + 502, 0)
    waited = [made.step(0) for _ in range(4)]
    assert waited[:3] == [None] * 3
    assert waited[3] is not None
    assert (waited[3].number, waited[3].epoch) == (FIRST + 502, 6)
    assert made.drops[Drop.SKIPPED] == 1


# Whatever happens


@dataclass
class History:
    """What was done to a chain, and what it did."""

    chain: Chain
    ticks: list[Tick] = field(default_factory=list)
    sent: dict[str, Tx] = field(default_factory=dict)


PEOPLE = (ANN, BOB, CAT, NEW)
TO = st.sampled_from([*PEOPLE, NULL, contract_id(QUTIL), contract_id(QX), contract_id(29)])
SEND = st.tuples(
    st.just("send"), st.sampled_from([*PEOPLE, contract_id(QX)]), TO, st.integers(0, 150), st.integers(1, 8)
)
OUTPUTS = st.lists(st.tuples(st.sampled_from(PEOPLE), st.integers(1, 40)), min_size=1, max_size=4)
MANY = st.tuples(st.just("many"), st.sampled_from(PEOPLE), OUTPUTS, st.integers(-1, 1), st.integers(1, 8))
STEP = st.tuples(st.just("step"), st.booleans())
EPOCH = st.tuples(st.just("epoch"), st.integers(0, 50), st.integers(0, 3))
ACTIONS = st.lists(st.one_of(SEND, SEND, MANY, STEP, STEP, STEP, EPOCH), max_size=60)


def played(actions: list[tuple[object, ...]]) -> History:
    history = History(chain(slots=3, ann=200, bob=100, cat=1))
    made = history.chain
    for action in actions:
        match action:
            case ("send", bytes(source), bytes(to), int(amount), int(ahead)):
                one = tx(source, to, amount, made.tick + ahead)
            case ("many", bytes(source), list(outputs), int(off), int(ahead)):
                payload, total = send_to_many(outputs)
                one = tx(source, contract_id(QUTIL), total + off, made.tick + ahead, input_type=1, payload=payload)
            case ("step", bool(empty)):
                found = made.step(len(history.ticks), empty=empty and not made.pause_left)
                history.ticks += [found] if found else []
                continue
            case ("epoch", int(jump), int(pause)):
                made.switch_epoch(jump=jump, pause=pause)
                continue
            case _:
                raise AssertionError(action)
        made.submit(one)
        history.sent[one.id] = one
    return history


@settings(max_examples=150, deadline=None)
@given(ACTIONS)
def test_no_qu_comes_from_nowhere_and_nothing_runs_twice(actions: list[tuple[object, ...]]) -> None:
    history = played(actions)
    made = history.chain
    assert made.supply + made.burned == 301
    assert all(0 <= one.outgoing <= one.incoming for one in made.entities.values())
    ran = [(done.tx.id, tick.number) for tick in history.ticks for done in tick.done]
    assert len({tx_id for tx_id, _ in ran}) == len(ran)
    assert all(history.sent[tx_id].tick == number for tx_id, number in ran)
    assert all(len(tick.done) <= made.slots and not (tick.empty and tick.done) for tick in history.ticks)
    assert all(after.number > before.number for before, after in pairwise(history.ticks))
    for tick in history.ticks:
        for done in tick.done:
            moved = sum(event.amount for event in done.outcome.events if event.source == done.tx.source)
            assert done.outcome.money_flew == (moved >= done.tx.amount > 0)


@settings(max_examples=40, deadline=None)
@given(ACTIONS)
def test_the_same_calls_give_the_same_history(actions: list[tuple[object, ...]]) -> None:
    first, again = played(actions), played(actions)
    assert first.chain.history == again.chain.history
    assert first.chain == again.chain
    assert first.ticks == again.ticks
