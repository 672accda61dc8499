# SPDX-License-Identifier: Apache-2.0
"""Trials on real processes (trust C6, B10): who is not what it claims is not verified."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import qubix
from qubix_protocol.trials import TrialView
from tests.e2e.test_main_job import client, until
from tests.support.market import Market

GENTLE = {
    "QUBIX_TRIAL_EVERY_S": "21600",
    "QUBIX_TRIAL_FIRST_S": "0.5",
    "QUBIX_TRIAL_FILL_S": "2",
    "QUBIX_TRIAL_CPU_BYTES": str(16 * 2**20),
}
"""For a small machine: half a second of filling, of 16 MiB."""
POSING = {"QUBIX_NODE_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture
def strict(folder: Path) -> Iterator[Market]:
    with Market(folder, **GENTLE, QUBIX_TRIAL_SLACK_S="1.5") as running:
        yield running


def newest(api: qubix.Client, listing_id: str) -> TrialView | None:
    found = api.trials(listing_id)
    return found[0] if found else None


def tried(api: qubix.Client) -> list[TrialView]:
    """The newest trial of each device, once there is one of all."""
    until(lambda: api.offers() and all(newest(api, one.listing_id) for one in api.offers()))
    found = [newest(api, one.listing_id) for one in api.offers()]
    return [one for one in found if one is not None]


@pytest.mark.slow
def test_a_processor_that_poses_as_a_card_is_refused_by_memory_and_by_time(strict: Market) -> None:
    """One says it has what a card has; the other so little that this machine has it, too."""
    sizes = {"memory": 80 * 2**30, "time": 96 * 2**20}
    for reason, size in sizes.items():
        strict.start_node(reason, "tests.support.posing_node", POSE="card", POSE_MEMORY=str(size), **POSING)
    with client(strict) as api:
        until(lambda: len(api.offers()) == 2)
        tried(api)
        for offer in api.offers():
            trial = newest(api, offer.listing_id)
            assert trial is not None
            assert sizes[trial.reason] == offer.memory_bytes, trial
            assert (trial.verdict, offer.verified, offer.score) == ("failed", False, 0.0)
            assert offer.model == "NVIDIA H100 80GB HBM3"


@pytest.mark.slow
def test_one_processor_that_answers_for_twenty_is_refused(strict: Market) -> None:
    strict.start_node(module="tests.support.posing_node", POSE="many", **POSING)
    with client(strict) as api:
        until(lambda: len(api.offers()) == 20)
        trials = tried(api)
        assert len({one.trial_id for one in trials}) == 1, "all at once"
        assert {(one.verdict, one.reason) for one in trials} == {("failed", "time")}, trials[0]
        assert not any(one.verified for one in api.offers())
