# SPDX-License-Identifier: Apache-2.0
"""Who fits a job, what it will cost there, and who gets it: a rule, not an auction. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from uuid import UUID

from qubix_coordinator.market import matching
from qubix_coordinator.market.forecast import NO_HISTORY, Forecast, History, Work, forecast, rated_ms
from qubix_coordinator.market.matching import Bid
from qubix_protocol.messages import Device, KernelRate
from qubix_protocol.states import Availability, DeviceKind, Reason, named_software
from qubix_protocol.units import READING_AGE_S_MAX

STALE_MS: Final = 60_000
"""Metrics older than this are marked (P9)."""
UNMARKED_MS_MAX: Final = STALE_MS - round(READING_AGE_S_MAX * 1000)
"""For so long after they came: they were up to `READING_AGE_S_MAX` old when the node sent them."""
CLOCK_BACK_MS: Final = 60_000
"""A reading that is older than the last one by more than this comes from a clock that was put back."""
OFFERS_MISSED_MAX: Final = 3
BACKOFF_FIRST_MS: Final = 2_000
BACKOFF_MAX_MS: Final = 300_000
WRONG_RESULT_BACKOFF_MS: Final = 600_000


class Obstacle(StrEnum):
    """The dimension in which an offer does not fit, in the order in which they are looked at."""

    PROVIDER = "is not the provider the job names"
    QUERY = "is not what the job's query asks for"
    BACKEND = "has no back end for this kernel"
    BROWSER = "is a browser tab, which gets only checked work of the market's own kernels"
    UNMEASURED = "has not measured this kernel"
    MEMORY = "has too little memory"
    RATE = "is above the job's maximum rate"
    CAP = "is forecast above what is left of the cap"
    DEADLINE = "is forecast to take longer than the job's deadline leaves"
    EXCLUDED = "returned a wrong result for this job"
    AWAY = "is draining or offline"
    BACKOFF = "failed or declined a moment ago"
    BUSY = "is busy"


PRICE_OBSTACLES: Final = frozenset({Obstacle.RATE, Obstacle.CAP})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A listing as the choice sees it."""

    listing_id: UUID
    peer_id: str
    device_id: str
    model: str
    memory_bytes: int
    backends: tuple[str, ...]
    rate_qu_per_h: int
    availability: Availability
    rates: tuple[KernelRate, ...]
    jobs_parallel: int
    jobs_rejected: int
    failures: int
    backoff_until_ms: int
    offer_digest: bytes
    inet_bytes_per_s: int = 0
    """The slower way of its connection, as it claims; 0: unknown."""
    reliability: float = 0.0
    region: str = ""
    browser: bool = False


@dataclass(frozen=True, slots=True)
class Rentable:
    """A listing as somebody sees it who wants the device for a time."""

    candidate: Candidate
    kind: str
    online: bool
    offered_ms: int
    rental_id: UUID | None


@dataclass(frozen=True, slots=True)
class Need:
    """What is left to do of a job. `hold_left_qu` None: only an estimate, any price will do."""

    kernel: str
    backends: tuple[str, ...]
    flops: float
    bytes_moved: float
    memory_bytes: int
    hold_left_qu: int | None = None
    rate_qu_per_h_max: int | None = None
    provider: str | None = None
    time_left_ms: int | None = None
    """Until the job's deadline; None: only an estimate."""
    excluded: frozenset[str] = frozenset()
    wanted: frozenset[UUID] | None = None
    """Listings that the job's query finds; None: it has none."""
    moved_bytes: int = 0
    """To the provider and back."""
    history: History = NO_HISTORY
    """What past runs of the same kernel say."""
    browsers: bool = False
    """A browser tab may have it: every result is checked (trust C4), and the code is the market's own."""

    @property
    def work(self) -> Work:
        return Work(self.flops, self.bytes_moved, self.moved_bytes)

    region: str = ""
    """Where the consumer would rather have it run; empty: anywhere."""


@dataclass(frozen=True, slots=True)
class Choice:
    candidate: Candidate
    backend: str
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class Misfit:
    """`forecast` None: it has measured nothing to forecast by."""

    candidate: Candidate
    obstacle: Obstacle
    forecast: Forecast | None


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why nobody was chosen. `waiting` when somebody fits and is only occupied."""

    reason: Reason
    detail: str
    waiting: bool


def best_backend(candidate: Candidate, need: Need) -> tuple[str, Forecast] | None:
    """The device's fastest measured way to run the kernel."""
    found = []
    for rate in candidate.rates:
        if rate.kernel == need.kernel and rate.backend in need.backends and rate.backend in candidate.backends:
            guess = guess_of(candidate, rate, need)
            if guess is not None:
                found.append((rate.backend, guess))
    return min(found, key=lambda pair: (pair[1].run_ms, pair[0]), default=None)


def guess_of(candidate: Candidate, rate: KernelRate, need: Need) -> Forecast | None:
    rated = rated_ms(rate, need.work)
    if rated is None:
        return None
    learned = need.history.of(candidate.listing_id, candidate.model, rate, rated)
    return forecast(rate, need.work, candidate.rate_qu_per_h, learned, candidate.inet_bytes_per_s / 1000)


def misfit(candidate: Candidate, need: Need, guess: tuple[str, Forecast] | None) -> Obstacle | None:
    """The first lasting obstacle: one that waiting alone does not remove."""
    if need.provider is not None and candidate.peer_id != need.provider:
        return Obstacle.PROVIDER
    if need.wanted is not None and candidate.listing_id not in need.wanted:
        return Obstacle.QUERY
    if not set(candidate.backends) & set(need.backends):
        return Obstacle.BACKEND
    if candidate.browser and not need.browsers:
        return Obstacle.BROWSER
    if guess is None:
        return Obstacle.UNMEASURED
    if need.memory_bytes > candidate.memory_bytes:
        return Obstacle.MEMORY
    if need.rate_qu_per_h_max is not None and candidate.rate_qu_per_h > need.rate_qu_per_h_max:
        return Obstacle.RATE
    if need.hold_left_qu is not None and guess[1].cost_high_qu > need.hold_left_qu:
        return Obstacle.CAP
    if need.time_left_ms is not None and guess[1].run_ms > need.time_left_ms:
        # A card that asks nothing and takes for ever would be the cheapest, and let every job expire in its hands.
        return Obstacle.DEADLINE
    if candidate.peer_id in need.excluded:
        return Obstacle.EXCLUDED
    return None


def occupied(candidate: Candidate, running: int, now_ms: int) -> Obstacle | None:
    """A passing obstacle. `running` counts the coordinator's own live attempts there: a node's word that it is busy may
    be about the job that has just ended, so it only lowers the score."""
    if candidate.availability in (Availability.DRAINING, Availability.OFFLINE):
        return Obstacle.AWAY
    if candidate.backoff_until_ms > now_ms:
        return Obstacle.BACKOFF
    if running >= candidate.jobs_parallel:
        return Obstacle.BUSY
    return None


def rented(candidate: Candidate) -> Candidate:
    """The device to its renter: it takes one job at a time, and what a job of theirs did to it is their own affair."""
    own = candidate.availability in (Availability.RENTED, Availability.BUSY)
    availability = Availability.AVAILABLE if own else candidate.availability
    return replace(candidate, availability=availability, jobs_parallel=1, backoff_until_ms=0)


def places_free(candidates: Iterable[Candidate], running: Mapping[UUID, int], now_ms: int) -> int:
    """How many more attempts the market could take now, whatever they ask for."""
    counted = ((one, running.get(one.listing_id, 0)) for one in candidates)
    return sum(one.jobs_parallel - busy for one, busy in counted if occupied(one, busy, now_ms) is None)


def bid(choice: Choice, need: Need, load: int = 0) -> Bid:
    """As the choice weighs it (see `matching`)."""
    candidate = choice.candidate
    return Bid(
        key=str(candidate.listing_id),
        provider=candidate.peer_id,
        cost_qu=choice.forecast.cost_qu,
        run_ms=choice.forecast.run_ms,
        reliability=candidate.reliability,
        failures=candidate.failures,
        elsewhere=need.region not in ("", candidate.region),
        occupied=candidate.availability in (Availability.BUSY, Availability.RENTED),
        load=load,
    )


def score(choice: Choice, need: Need) -> tuple[bool, float, int, str]:
    """Lower is better."""
    return matching.order(bid(choice, need))


def choose(
    candidates: Collection[Candidate], need: Need, running: Mapping[UUID, int], now_ms: int, luck: float = 0.5
) -> Choice | Shortfall:
    """Who gets it of those that fit and are free, or the reason why there is nobody. `luck` in [0, 1)."""
    choices, obstacles = dict[str, Choice](), Counter[Obstacle]()
    for candidate in candidates:
        guess = best_backend(candidate, need)
        found = misfit(candidate, need, guess) or occupied(candidate, running.get(candidate.listing_id, 0), now_ms)
        if found is not None or guess is None:
            obstacles[found or Obstacle.UNMEASURED] += 1
        else:
            choices[str(candidate.listing_id)] = Choice(candidate, *guess)
    if not choices:
        return shortfall(obstacles)
    load = Counter[str]()
    for candidate in candidates:
        load[candidate.peer_id] += running.get(candidate.listing_id, 0)
    bids = [bid(one, need, load[one.candidate.peer_id]) for one in choices.values()]
    return choices[matching.pick(bids, luck).key]


def shortfall(obstacles: Mapping[Obstacle, int]) -> Shortfall:
    if not obstacles:
        return Shortfall(Reason.NOBODY_FITS, "no provider is in the market", waiting=False)
    detail = ", ".join(f"{obstacles[o]} {o.value}" for o in Obstacle if obstacles.get(o))
    total = sum(obstacles.values())
    text = f"of {total} offer{'s' if total > 1 else ''}: {detail}"
    passing = any(obstacles.get(o) for o in (Obstacle.BUSY, Obstacle.BACKOFF, Obstacle.AWAY))
    if not passing and any(obstacles.get(o) for o in PRICE_OBSTACLES):
        return Shortfall(Reason.TOO_DEAR, text, waiting=False)
    return Shortfall(Reason.NOBODY_FITS, text, waiting=passing)


def able(candidates: Iterable[Candidate], need: Need, running: Mapping[UUID, int], now_ms: int) -> list[Choice]:
    """Every free candidate that fits but for hold and deadline, best first: a part of the work may fit those, too."""
    unbound = replace(need, hold_left_qu=None, time_left_ms=None)
    free = (one for one in candidates if occupied(one, running.get(one.listing_id, 0), now_ms) is None)
    return estimates(free, unbound)


def estimates(candidates: Iterable[Candidate], need: Need) -> list[Choice]:
    """Every candidate that could run it, the best first, occupied or not."""
    return sorted_out(candidates, need)[0]


def sorted_out(candidates: Iterable[Candidate], need: Need) -> tuple[list[Choice], list[Misfit]]:
    """Those that could run it, the best first, occupied or not; and the others, by what keeps them out."""
    fitting, misfits = [], []
    for candidate in candidates:
        guess = best_backend(candidate, need)
        obstacle = misfit(candidate, need, guess)
        if guess is not None and obstacle is None:
            fitting.append(Choice(candidate, *guess))
        else:
            told = guess[1] if guess is not None else None
            misfits.append(Misfit(candidate, obstacle or Obstacle.UNMEASURED, told))
    order = list(Obstacle)
    misfits.sort(key=lambda one: (order.index(one.obstacle), str(one.candidate.listing_id)))
    return sorted(fitting, key=lambda one: score(one, need)), misfits


def software(device: Device) -> bool:
    """A claim like any other (trust C6): it keeps the honest from being taken for what they are not."""
    return device.fallback or (device.kind is DeviceKind.WEBGPU and named_software(device.model, device.driver))


@dataclass(frozen=True, slots=True)
class Way:
    """How an offer came. `country` is that of the node's address; without it the node's own word is taken."""

    country: str = ""
    browser: bool = False
    """By a tab's own socket."""
    fallbacks: bool = False
    """Software in a GPU's place is listed here."""


BY_MESH: Final = Way()


@dataclass(frozen=True, slots=True)
class Unwelcome:
    """Why a device cannot be offered here."""

    problem: str
    remedy: str


def unwelcome(device: Device, way: Way) -> Unwelcome | None:
    if way.browser and device.kind is not DeviceKind.WEBGPU:
        return Unwelcome(f"a browser tab has no device of the kind {device.kind.value}", "Offer it with `qubix node`")
    if software(device) and not way.fallbacks:
        return Unwelcome(
            "this is software on the processor, no GPU",
            "Switch on graphics acceleration, or offer the processor as one with `qubix node`",
        )
    return None


def backoff_ms(failures: int) -> int:
    """After the n-th failure in a row."""
    return int(min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** min(max(failures - 1, 0), 20)))


def fresher(last_ms: int | None, at_ms: int) -> bool:
    """Whether a reading is news, by the node's own clock: an old one that is said again does not become young."""
    return last_ms is None or at_ms > last_ms or at_ms < last_ms - CLOCK_BACK_MS


def stale(age_ms: int | None) -> bool:
    """`age_ms` since the reading came; None: there is none."""
    return age_ms is not None and age_ms > UNMARKED_MS_MAX


def marked_before_ms(now_ms: int) -> int:
    """Readings that came before this are stale."""
    return now_ms - UNMARKED_MS_MAX


def visible_since_ms(now_ms: int, offer_s: float) -> int:
    """Offers older than this are no longer in the market."""
    return now_ms - round(OFFERS_MISSED_MAX * offer_s * 1000)
