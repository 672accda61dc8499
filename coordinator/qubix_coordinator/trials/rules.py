# SPDX-License-Identifier: Apache-2.0
"""How large a trial is, how long it may take, what it shows, and what a listing may then call itself. Pure (trust C6).

Nothing here is believed but what the coordinator measured: the time from sealing a command to its answer, and digests
that it makes anew from the seed.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from qubix_kernels.trial import rules as pages
from qubix_protocol.messages import KernelRate
from qubix_protocol.states import DeviceKind
from qubix_protocol.trials import TrialShape

VRAM_SHARE: Final = 0.9
"""Of a card's claimed memory: what a driver and its context leave to a program."""
FILL_FACTOR: Final = 2.5
"""A device may take so many times what its pace makes of the work."""
PROOF_SHARE: Final = 0.15
"""Of the time that making the pages again would take by the device's pace."""
CPU_FILL_SHARE: Final = 0.25
"""Of the time that a card's filling aims at: on a processor a trial is felt by whoever sits there."""
EXPECTED_S_MAX: Final = 120.0
MODEL_SHARE: Final = 0.1
"""Of a card's float32 peak that any back end of ours reaches; less is not that card."""
MODEL_PACE: Final = 0.4
"""Of the peak of a card that the list knows: what a trial counts with at least. Our products reach 0.47 of it on an
H200, while a claimed rate is measured with transfers, at a tenth to a third of that: by it, pages could be made again
in the time to tell them, and whoever claims too little would have it so."""
PREPARE_MS: Final = 120_000
GRACE_MS: Final = 5_000
VOIDS_MAX: Final = 3
"""So many trials in a row may come to nothing before that is a finding, too."""
SAMPLES: Final = 6
"""Pages made anew of each device: half a memory goes unseen once in 64."""

PEAKS_GFLOPS: Final[tuple[tuple[str, float], ...]] = (
    (r"\bH200\b", 67_000),
    (r"\bH100\b", 51_000),
    (r"\bB200\b", 75_000),
    (r"\bA100\b", 19_500),
    (r"\bA10\b", 31_000),
    (r"\bL40S?\b", 90_000),
    (r"\bL4\b", 30_000),
    (r"\bT4\b", 8_100),
    (r"\bV100\b", 14_000),
    (r"\bRTX 5090\b", 104_000),
    (r"\bRTX 4090\b", 82_000),
    (r"\bRTX 4080\b", 48_000),
    (r"\bRTX 4070\b", 29_000),
    (r"\bRTX 4060\b", 15_000),
    (r"\bRTX 3090\b", 35_000),
    (r"\bRTX 3080\b", 29_000),
    (r"\bRTX 3070\b", 20_000),
    (r"\bRTX 3060\b", 12_000),
    (r"\bRTX 2080\b", 10_000),
)
"""float32 peaks without tensor cores by NVIDIA's data sheets, rounded down; of several variants the slowest."""


class State(StrEnum):
    ASKED = "asked"
    FILLING = "filling"
    PROVING = "proving"
    JUDGING = "judging"
    PASSED = "passed"
    FAILED = "failed"
    VOID = "void"


class Why(StrEnum):
    NONE = ""
    SILENT = "silent"
    MEMORY = "memory"
    TIME = "time"
    WRONG = "wrong"
    MODEL = "model"
    BROKEN = "broken"
    BUSY = "busy"
    SESSION = "session"
    AWAY = "away"
    """The market itself: nothing follows for the node."""


REMEDIES: Final = {
    Why.SILENT: "Update the node, and see that it stays connected.",
    Why.MEMORY: "Close what else uses the card's memory; offer no more than there is.",
    Why.TIME: "See that nothing else uses the device and nothing slows it; else delete rates.json and restart.",
    Why.WRONG: "Undo overclocking; if it stays, this device computes or remembers wrongly.",
    Why.MODEL: "Offer the device as what it is.",
    Why.BROKEN: "See the node's log: a back end does not run.",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """What a listing says of itself, as far as a trial is about it."""

    listing_id: UUID
    device_id: str
    kind: DeviceKind
    model: str
    driver: str
    memory_bytes: int
    backend: str
    flops: float


@dataclass(frozen=True, slots=True)
class Aims:
    """`fill_s`: how long filling a card should take; `slack_ms`: what network and start may add to each answer."""

    fill_s: float
    slack_ms: int
    cpu_bytes_max: int


@dataclass(frozen=True, slots=True)
class Part:
    """One device in a trial. `right`: whether the sampled digests are; None: not looked at."""

    claim: Claim
    shape: TrialShape
    ready: bool = False
    fill_ms: int | None = None
    proof_ms: int | None = None
    problem: str = ""
    detail: str = ""
    right: bool | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    state: State
    why: Why = Why.NONE
    detail: str = ""


def matmul_rate(rates: Iterable[KernelRate], backends: Sequence[str]) -> tuple[str, float] | None:
    """Back end and claimed operations per second of the fastest that a trial can run on; None when none was
    measured."""
    tried = set(backends) & set(pages.DEPTH_MIN)
    known = [(one.backend, one.flops_per_s) for one in rates if one.kernel == "matmul" and one.backend in tried]
    return max(known, key=lambda pair: pair[1]) if known and max(rate for _, rate in known) > 0 else None


def shape(claim: Claim, aims: Aims) -> TrialShape | None:
    """None: by its own claims it is too slow to fill its memory in any reasonable time."""
    card = claim.kind is not DeviceKind.CPU
    room = int(claim.memory_bytes * VRAM_SHARE) if card else min(claim.memory_bytes, aims.cpu_bytes_max)
    fill_s = aims.fill_s if card else aims.fill_s * CPU_FILL_SHARE
    made = pages.shape_of(room, fill_s * pace(claim), claim.backend)
    return made if pages.flops(made) / pace(claim) <= EXPECTED_S_MAX else None


def pace(claim: Claim) -> float:
    """Operations a second that a trial counts with: the claimed ones, or more where the model is known."""
    known = peak_gflops(claim.model) if claim.kind is DeviceKind.CUDA else 0.0
    return max(claim.flops, MODEL_PACE * known * 1e9)


def expected_ms(part: Part) -> float:
    """By its pace."""
    return pages.flops(part.shape) / pace(part.claim) * 1000


def fill_ms_max(part: Part, slack_ms: int) -> int:
    return round(FILL_FACTOR * expected_ms(part)) + slack_ms


def proof_ms_max(part: Part, slack_ms: int) -> int:
    """Far below what it takes to make the pages again."""
    return round(PROOF_SHARE * expected_ms(part)) + slack_ms


def gflops(part: Part) -> float:
    """As measured: 0 for what was not filled."""
    return pages.flops(part.shape) / max(1, part.fill_ms) / 1e6 if part.fill_ms is not None else 0.0


def peak_gflops(model: str) -> float:
    """Of a card that the list knows; 0 for others."""
    return next((peak for pattern, peak in PEAKS_GFLOPS if re.search(pattern, model, re.IGNORECASE)), 0.0)


def fault(part: Part, slack_ms: int) -> tuple[Why, str] | None:
    """What one device has shown that it must not; None while it has shown nothing wrong."""
    if part.problem == Why.BUSY:
        return Why.BUSY, "a job or rental came in between"
    if part.problem == "out_of_memory":
        return Why.MEMORY, f"it has no room for {pages.fill_bytes(part.shape) / 2**30:.1f} GiB"
    if part.problem:
        return Why.BROKEN, part.detail or part.problem
    peak = peak_gflops(part.claim.model) if part.claim.kind is DeviceKind.CUDA else 0.0
    if part.fill_ms is not None and gflops(part) < MODEL_SHARE * peak:
        return Why.MODEL, f"{gflops(part):,.0f} GFLOP/s are no {part.claim.model}, whose peak is {peak:,.0f}"
    if part.fill_ms is not None and part.fill_ms > fill_ms_max(part, slack_ms):
        return Why.TIME, f"filling took {part.fill_ms / 1000:.1f} s, expected were {expected_ms(part) / 1000:.1f} s"
    if part.proof_ms is not None and part.proof_ms > proof_ms_max(part, slack_ms):
        held = f"{pages.fill_bytes(part.shape) / 2**30:.1f} GiB"
        return Why.MEMORY, f"telling what it holds took {part.proof_ms / 1000:.1f} s: it does not hold {held}"
    if part.right is False:
        return Why.WRONG, "what it says to hold is not what was asked for"
    return None


def first_fault(parts: Iterable[Part], slack_ms: int) -> Verdict | None:
    """One device that is not what it claims puts the whole node in question. A job or a rental comes before a trial,
    so what it interrupts is void."""
    found = [(part, *seen) for part in parts if (seen := fault(part, slack_ms)) is not None]
    if not found:
        return None
    if any(why is Why.BUSY for _, why, _ in found):
        return Verdict(State.VOID, Why.BUSY, found[0][2])
    part, why, detail = found[0]
    return Verdict(State.FAILED, why, f"{part.claim.model} ({part.claim.device_id}): {detail}"[:500])


def overdue(parts: Sequence[Part], state: State, *, attended: bool = True) -> Verdict:
    """The time of a step is over. `attended`: the market was there all the while to hear what the node says."""
    if state is State.JUDGING or not attended:
        return Verdict(State.VOID, Why.AWAY, "the market was away, and did not come to hear or judge it in time")
    if state is State.ASKED:
        late = [part for part in parts if not part.ready]
        why, what = Why.SILENT, "did not make ready"
    elif state is State.FILLING:
        late = [part for part in parts if part.fill_ms is None]
        why, what = Why.TIME, "did not fill its memory in time"
    else:
        late = [part for part in parts if part.proof_ms is None]
        why, what = Why.MEMORY, "did not tell in time what it holds"
    first = (late or list(parts))[0].claim
    return Verdict(State.FAILED, why, f"{first.model} ({first.device_id}) {what}"[:500])


def judge(parts: Sequence[Part], slack_ms: int) -> Verdict:
    """When everything has come and the samples are made."""
    found = first_fault(parts, slack_ms)
    if found is not None:
        return found
    if not all(part.right for part in parts):
        return Verdict(State.FAILED, Why.WRONG, "not every device answered")
    return Verdict(State.PASSED, detail=f"{len(parts)} device{'s' if len(parts) > 1 else ''} at once")


def with_voids(verdict: Verdict, voids: int) -> Verdict:
    """`voids`: how many before it, in a row, came to nothing, but for those in which the market was away."""
    if verdict.state is State.VOID and verdict.why is not Why.AWAY and voids + 1 >= VOIDS_MAX:
        return Verdict(State.FAILED, verdict.why, f"{VOIDS_MAX} trials in a row came to nothing")
    return verdict


@dataclass(frozen=True, slots=True)
class Standing:
    verified: bool
    score: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one listing. Ages in milliseconds; None: there is none."""

    selftest_passed: bool
    selftest_age_ms: int | None
    trial_passed: bool
    trial_age_ms: int | None
    same_claims: bool
    """Model, driver and memory are those that were tried."""
    trial_gflops: float
    observed_gflops: float | None


def standing(evidence: Evidence, age_ms_max: int) -> Standing:
    """Verified by a self-test and a trial that are not too old; the score is the lesser of trial and jobs."""
    fresh = all(age is not None and age <= age_ms_max for age in (evidence.selftest_age_ms, evidence.trial_age_ms))
    if not (fresh and evidence.selftest_passed and evidence.trial_passed and evidence.same_claims):
        return Standing(verified=False, score=0.0)
    known = [evidence.trial_gflops, *([] if evidence.observed_gflops is None else [evidence.observed_gflops])]
    return Standing(verified=True, score=min(known))


def next_ms(now_ms: int, every_ms: int, chance: float) -> int:
    """Somewhere in half to one and a half of the usual time; `chance` is drawn from the operating system."""
    return now_ms + round(every_ms * (0.5 + chance))
