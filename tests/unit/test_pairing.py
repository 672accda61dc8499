# SPDX-License-Identifier: Apache-2.0
"""Pairing codes and fingerprints as people type and compare them, a pairing's states, the node that follows one."""

import re
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_coordinator.accounts.pairing_rules import OPEN, Event, decide, due_ms, may_join
from qubix_coordinator.errors import LimitExceeded
from qubix_coordinator.http.rates import Doors
from qubix_node import pairing
from qubix_node.errors import EnrolmentRefused, Unreachable
from qubix_protocol.keys import SigningKey
from qubix_protocol.pairing import (
    NodePairingView,
    PairingMadeView,
    PairingState,
    PairingView,
    code_of,
    digest_of_code,
    fingerprint,
    same_fingerprint,
)

KEY = SigningKey(b"n" * 32)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_a_code_is_read_however_it_is_typed_and_every_code_is_another(raw: bytes, other: bytes) -> None:
    code = code_of(raw)
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){6}[0-9A-HJKMNP-TV-Z]{2}", code)
    digest = digest_of_code(code)
    assert digest is not None
    assert len(digest) == 32
    typed = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert digest_of_code(f" {typed} ") == digest
    assert (digest_of_code(code_of(other)) == digest) == (raw == other)


@pytest.mark.parametrize("text", ["", "x", "7" * 25, "7" * 27, "U" * 26, "Z" * 26, "é" * 26, "\x00" * 26])
def test_what_is_no_code_has_no_digest(text: str) -> None:
    assert digest_of_code(text) is None


def test_a_fingerprint_has_eighty_bits_of_the_key() -> None:
    shown = fingerprint(KEY.public)
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}", shown)
    assert shown == fingerprint(KEY.public)
    assert len({fingerprint(bytes([n]) * 32) for n in range(200)}) == 200
    assert same_fingerprint(shown, shown.lower().replace("-", " "))
    assert not same_fingerprint(shown, shown[:-1] + ("0" if shown[-1] != "0" else "1"))
    assert not same_fingerprint(shown, "")


@pytest.mark.parametrize("state", list(PairingState))
@pytest.mark.parametrize("event", list(Event))
def test_each_state_and_event(state: PairingState, event: Event) -> None:
    found = decide(state, event)
    if state not in OPEN:
        assert found is None
        return
    if event in (Event.REFUSED, Event.DUE):
        assert found is not None
        assert found not in OPEN
    else:
        wanted = Event.BROUGHT if state is PairingState.WAITING else Event.CONFIRMED
        assert (found is not None) == (event is wanted)


@pytest.mark.parametrize("state", list(PairingState))
def test_m5_every_open_state_ends_by_itself(state: PairingState) -> None:
    due = due_ms(state, 1_000)
    assert (due is not None) == (state in OPEN)
    if state is PairingState.WAITING:
        assert due == 1_000 + 10 * 60 * 1000
    if due is not None:
        assert decide(state, Event.DUE) is PairingState.EXPIRED


def test_a_node_leaves_its_own_account_once() -> None:
    own, mine, yours = UUID(int=1), UUID(int=2), UUID(int=3)
    assert may_join(own, own, mine)
    assert may_join(mine, own, mine)
    assert not may_join(yours, own, mine)


def test_the_code_is_not_in_what_is_printed() -> None:
    view = PairingView(pairing_id="0" * 36, name="x", state=PairingState.WAITING, made_ms=0)
    code = code_of(b"s" * 16)
    assert code not in repr(PairingMadeView(code=code, pairing=view))


def test_a2_wrong_codes_close_the_door_for_their_address_alone() -> None:
    doors = Doors()
    for guess in range(10):
        doors.pairing_brought("1.2.3.4", f"peer {guess}", 0.0)
        doors.pairing_guessed("1.2.3.4", 0.0)
    with pytest.raises(LimitExceeded):
        doors.pairing_brought("1.2.3.4", "peer", 0.0)
    doors.pairing_brought("5.6.7.8", "peer", 0.0)
    doors.pairing_brought("1.2.3.4", "peer", 60.0)


def _told(*states: PairingState | Exception) -> tuple[pairing.Ask, list[int]]:
    left, asked = list(states), [0]

    async def ask() -> NodePairingView:
        asked[0] += 1
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return NodePairingView(state=found, fingerprint="")

    return ask, asked


@pytest.mark.trio
@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ((PairingState.SEEN, PairingState.SEEN, PairingState.CONFIRMED), PairingState.CONFIRMED),
        ((Unreachable("away"), PairingState.SEEN, PairingState.REFUSED), PairingState.REFUSED),
        ((PairingState.SEEN, PairingState.EXPIRED), PairingState.EXPIRED),
        ((EnrolmentRefused("used"),), None),
    ],
)
async def test_a_node_follows_its_pairing_to_the_end(
    answers: Sequence[PairingState | Exception],
    outcome: PairingState | None,
    autojump_clock: object,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ask, asked = _told(*answers)
    with caplog.at_level("INFO", "qubix_node"):
        assert await pairing.follow(ask, KEY) is outcome
    assert asked == [len(answers)]
    told = [getattr(record, "fingerprint", None) for record in caplog.records if record.message == "pair.state"]
    assert set(told) <= {fingerprint(KEY.public)}
    assert bool(told) == (outcome is not None)
