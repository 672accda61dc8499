# SPDX-License-Identifier: Apache-2.0
"""Every verifier is tried with plausible cheats (trust.md C2): each really changes the outputs, and each is caught."""

import functools

import numpy as np
import pytest

from qubix_kernels import names
from tests.kernels.conformance import subjects
from tests.kernels.conformance.cheats import CHEATS, SMALL_CHEATS
from tests.kernels.conformance.world import Cheat, Job, Outputs, Subject

SEEDS = 5
LEAST_CHEATS = 5
"""That a kernel brings of its own, beside those of every kernel."""


@functools.cache
def honest(name: str, kind: str) -> tuple[Job, Outputs]:
    job: Job = getattr(subjects()[name], kind)()
    return job, job.run()


def table(subject: Subject) -> dict[str, tuple[str, Cheat]]:
    """Name → (on which job, cheat)."""
    both = [("trial", CHEATS | dict(subject.cheats)), ("complete", SMALL_CHEATS | dict(subject.small_cheats))]
    return {name: (kind, cheat) for kind, cheats in both for name, cheat in cheats.items()}


TRIED = [
    (name, title) for name in names() for title in table(subjects()[name]) if title not in subjects()[name].not_harmful
]


def spoilt(name: str, title: str) -> tuple[Job, Outputs, Outputs]:
    kind, cheat = table(subjects()[name])[title]
    job, outputs = honest(name, kind)
    own = {key: array.copy() for key, array in outputs.items()}
    with np.errstate(all="ignore"):
        return job, outputs, cheat(job, own, np.random.default_rng(1))


def unchanged(outputs: Outputs, changed: Outputs) -> bool:
    return all(np.array_equal(outputs[key], changed[key], equal_nan=True) for key in outputs)


@pytest.mark.parametrize("name", names())
def test_every_kernel_has_its_table_of_cheats(name: str) -> None:
    subject = subjects()[name]
    assert len(subject.cheats) >= LEAST_CHEATS
    assert set(subject.not_harmful) <= set(CHEATS | SMALL_CHEATS)
    assert not (set(subject.cheats) | set(subject.small_cheats)) & set(CHEATS | SMALL_CHEATS)


@pytest.mark.parametrize(("name", "title"), TRIED)
def test_a_cheat_changes_the_outputs_in_their_right_form_and_is_caught(name: str, title: str) -> None:
    job, outputs, changed = spoilt(name, title)
    assert {key: (array.dtype, array.shape) for key, array in changed.items()} == {
        key: (array.dtype, array.shape) for key, array in outputs.items()
    }
    assert not unchanged(outputs, changed)
    verdicts = [job.verdict(changed, seed) for seed in range(SEEDS)]
    assert [verdict.accepted for verdict in verdicts] == [False] * SEEDS
    assert not {verdict.reason for verdict in verdicts} & {"ok", "shape", "bad_input"}


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("kind", ["trial", "complete"])
def test_the_honest_outputs_of_the_same_jobs_are_accepted(name: str, kind: str) -> None:
    job, outputs = honest(name, kind)
    assert all(job.verdict(outputs, seed).accepted for seed in range(SEEDS))


@pytest.mark.parametrize(
    ("name", "title"), [(name, title) for name in names() for title in subjects()[name].not_harmful]
)
def test_what_is_left_out_of_a_table_changes_nothing_there(name: str, title: str) -> None:
    job, outputs, changed = spoilt(name, title)
    assert unchanged(outputs, changed) or job.verdict(changed).accepted, "it is harmful: try it"
