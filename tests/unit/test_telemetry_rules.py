# SPDX-License-Identifier: Apache-2.0
"""How a batch of samples is put in order."""

import random

import pytest

from qubix_coordinator.telemetry import rules
from qubix_coordinator.telemetry.rules import Said
from qubix_protocol.messages import Sample


def said(device: int, at_ms: int, received_ms: int = 0) -> Said:
    return Said("peer", received_ms, str(device), Sample(at_ms=at_ms))


@pytest.mark.parametrize("seed", range(20))
def test_of_each_device_and_second_the_newest_is_taken_in_one_order(seed: int) -> None:
    """Beside a plain dictionary. Of equals the last counts; what is nobody's is left out."""
    luck = random.Random(seed)
    numbers = [luck.choice([rules.NOBODY, 7, 3, 2**40]) for _ in range(luck.randrange(1, 60))]
    batch = [said(number, luck.randrange(118_000, 122_000, 250), place) for place, number in enumerate(numbers)]
    plain: dict[tuple[int, int], Said] = {}
    for number, one in zip(numbers, batch, strict=True):
        key = (number, one.sample.at_ms // 1000)
        if number != rules.NOBODY and (key not in plain or plain[key].sample.at_ms <= one.sample.at_ms):
            plain[key] = one
    once = rules.once(numbers, batch)
    keys = list(zip(once.numbers.tolist(), once.seconds.tolist(), strict=True))
    assert (keys, once.said) == (sorted(plain), [plain[key] for key in sorted(plain)])
    last = {number: one for (number, _), one in sorted(plain.items())}
    assert rules.newest(once) == {("peer", str(number)): one for number, one in last.items()}
    minutes = rules.by_minute(once)
    assert minutes == {
        start: sorted({number for number, at_s in plain if at_s // 60 * 60 == start})
        for start in sorted({at_s // 60 * 60 for _, at_s in plain})
    }


def test_of_nobody_there_is_nothing() -> None:
    once = rules.once([rules.NOBODY], [said(0, 1)])
    assert (once.said, rules.newest(once), rules.by_minute(once)) == ([], {}, {})
