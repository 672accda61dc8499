# SPDX-License-Identifier: Apache-2.0
"""What the node says of a device, from its state alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from qubix_protocol.messages import Device, KernelRate, Offer, Sample
from qubix_protocol.states import Availability, Isolation
from qubix_protocol.units import RELAY_ADDRESSES_MAX

OPENING_S: Final = (0.5, 2.0, 5.0)
"""In a new session the offer is said again after these: gossip's first words are easily unheard."""
_ANYWHERE: Final = ("/ip4/0.0.0.0/", "/ip6/::/")
CHANGE_S_MIN: Final = 0.2
"""Changes within this time are told as one."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is said of the machine around the device, the same of each. 0 and "" say nothing."""

    cpu_cores: int = 0
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    inet_down_bytes_per_s: int = 0
    inet_up_bytes_per_s: int = 0
    notice_s: int = 0
    country: str = ""
    relays_at: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    device: Device
    rate_qu_per_h: int
    region: str
    rates: tuple[KernelRate, ...]
    jobs_parallel: int
    isolation: Isolation
    busy: int
    draining: bool
    gone: bool
    sample: Sample | None
    machine: Machine = Machine()
    rented: bool = False
    closing: bool = False
    """Maintenance is announced: what is rented goes on until then, nothing new is begun."""


def availability(state: State) -> Availability:
    if state.gone:
        return Availability.OFFLINE
    if state.draining:
        return Availability.DRAINING
    if state.rented:
        return Availability.RENTED
    if state.closing:
        return Availability.DRAINING
    return Availability.BUSY if state.busy >= state.jobs_parallel else Availability.AVAILABLE


def build(state: State) -> Offer:
    """Rates of back ends that the device does not have are left out, and back ends on which no kernel runs there: a
    card that can do nothing is shown, and cannot be rented."""
    runs = {rate.backend for rate in state.rates}
    return Offer(
        device=msgspec.structs.replace(
            state.device, backends=tuple(backend for backend in state.device.backends if backend in runs)
        ),
        rate_qu_per_h=state.rate_qu_per_h,
        region=state.region,
        availability=availability(state),
        rates=tuple(rate for rate in state.rates if rate.backend in state.device.backends)[:64],
        metrics=state.sample,
        jobs_parallel=state.jobs_parallel,
        isolation=state.isolation,
        cpu_cores=state.machine.cpu_cores,
        cpu_memory_bytes=state.machine.memory_bytes,
        disk_free_bytes=state.machine.disk_free_bytes,
        inet_down_bytes_per_s=state.machine.inet_down_bytes_per_s,
        inet_up_bytes_per_s=state.machine.inet_up_bytes_per_s,
        notice_s=state.machine.notice_s,
        country=state.machine.country,
        relays_at=state.machine.relays_at,
    )


def farewell(offer: Offer) -> Offer:
    """The last word about a device."""
    return msgspec.structs.replace(offer, availability=Availability.OFFLINE, metrics=None)


def differ(one: Offer | None, other: Offer) -> bool:
    """Whether the market must hear of it now; new readings alone can wait for the next round."""
    return one is None or _without_readings(one) != _without_readings(other)


def rounded(room: float) -> int:
    """Whole GiB: less is no news to anybody."""
    return int(room) // 2**30 * 2**30


def _without_readings(offer: Offer) -> Offer:
    return msgspec.structs.replace(
        offer, metrics=None, disk_free_bytes=0, inet_down_bytes_per_s=0, inet_up_bytes_per_s=0
    )


def announced(listening: Sequence[str], announce: Sequence[str], peer_id: str) -> tuple[str, ...]:
    """Where others are told to find a relay: "every address of this machine" is no place to go to."""
    if announce:
        return tuple(f"{address}/p2p/{peer_id}" for address in announce)[:RELAY_ADDRESSES_MAX]
    return tuple(address for address in listening if not address.startswith(_ANYWHERE))[:RELAY_ADDRESSES_MAX]


def next_round_s(offer_s: float, chance: float) -> float:
    """Spread over 80–100 % of the period, so that nodes that started together do not speak together."""
    return offer_s * (0.8 + 0.2 * chance)
