# SPDX-License-Identifier: Apache-2.0
"""Offers follow from a device's state alone."""

from dataclasses import replace

import pytest

from qubix_node.offers import rules
from qubix_protocol.messages import Device, KernelRate, Sample
from qubix_protocol.states import Availability, DeviceKind, Isolation

CPU = Device(device_id="cpu-1", kind=DeviceKind.CPU, model="m", memory_bytes=1, backends=("cpu",))
STATE = rules.State(
    device=CPU,
    rate_qu_per_h=10,
    region="here",
    rates=(
        KernelRate(kernel="matmul", backend="cpu", flops_per_s=1, bytes_per_s=1),
        KernelRate(kernel="matmul", backend="cuda", flops_per_s=9, bytes_per_s=9),
    ),
    jobs_parallel=2,
    isolation=Isolation.BOX,
    busy=0,
    draining=False,
    gone=False,
    sample=None,
)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Availability.AVAILABLE),
        ({"busy": 1}, Availability.AVAILABLE),
        ({"busy": 2}, Availability.BUSY),
        ({"busy": 2, "draining": True}, Availability.DRAINING),
        ({"draining": True, "gone": True}, Availability.OFFLINE),
        ({"rented": True, "busy": 2}, Availability.RENTED),
        ({"rented": True, "closing": True}, Availability.RENTED),
        ({"closing": True}, Availability.DRAINING),
        ({"rented": True, "draining": True}, Availability.DRAINING),
    ],
)
def test_availability(changed: dict[str, object], expected: Availability) -> None:
    assert rules.availability(replace(STATE, **changed)) is expected  # type: ignore[arg-type]


def test_rates_of_back_ends_that_the_device_lacks_are_not_claimed() -> None:
    assert [rate.backend for rate in rules.build(STATE).rates] == ["cpu"]


def test_a_device_on_which_no_kernel_runs_is_shown_and_cannot_be_rented() -> None:
    assert rules.build(STATE).device.backends == ("cpu",)
    bare = rules.build(replace(STATE, rates=STATE.rates[1:]))
    assert (bare.device.backends, bare.rates) == ((), ())


@pytest.mark.parametrize("isolation", Isolation)
def test_what_stands_between_a_job_and_the_machine_is_said(isolation: Isolation) -> None:
    assert rules.build(replace(STATE, isolation=isolation)).isolation is isolation


def test_only_readings_may_wait_for_the_next_round() -> None:
    offer = rules.build(STATE)
    assert rules.differ(None, offer)
    assert not rules.differ(offer, rules.build(replace(STATE, sample=Sample(at_ms=5, utilisation_pct=99))))
    assert rules.differ(offer, rules.build(replace(STATE, busy=2)))
    assert rules.differ(offer, rules.build(replace(STATE, rate_qu_per_h=11)))
    assert rules.differ(offer, rules.build(replace(STATE, device=replace_device(cores=4))))


def replace_device(**changed: object) -> Device:
    import msgspec

    return msgspec.structs.replace(CPU, **changed)


def test_the_last_word_is_offline() -> None:
    assert rules.farewell(rules.build(STATE)).availability is Availability.OFFLINE


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_rounds_are_spread_and_never_late(chance: float) -> None:
    assert 24 <= rules.next_round_s(30, chance) <= 30


def test_what_stands_around_the_device_is_said_and_only_lasting_changes_of_it_at_once() -> None:
    around = rules.Machine(cpu_cores=8, memory_bytes=2**34, disk_free_bytes=2**30, notice_s=600, country="DE")
    offer = rules.build(replace(STATE, machine=around))
    assert (offer.cpu_cores, offer.cpu_memory_bytes, offer.disk_free_bytes) == (8, 2**34, 2**30)
    assert (offer.notice_s, offer.country, offer.relays_at) == (600, "DE", ())
    assert not rules.differ(offer, rules.build(replace(STATE, machine=replace(around, disk_free_bytes=5))))
    assert rules.differ(offer, rules.build(replace(STATE, machine=replace(around, notice_s=0))))


@pytest.mark.parametrize(
    ("listening", "announce", "told"),
    [
        ((), (), ()),
        (("/ip4/10.0.0.1/tcp/1/p2p/me", "/ip4/0.0.0.0/tcp/1/p2p/me"), (), ("/ip4/10.0.0.1/tcp/1/p2p/me",)),
        (("/ip4/0.0.0.0/tcp/1/p2p/me",), ("/dns4/a.example/tcp/9",), ("/dns4/a.example/tcp/9/p2p/me",)),
        (("/ip4/1.1.1.1/tcp/1/p2p/me",) * 9, (), ("/ip4/1.1.1.1/tcp/1/p2p/me",) * 4),
    ],
)
def test_relays_tell_addresses_that_lead_somewhere(
    listening: tuple[str, ...], announce: tuple[str, ...], told: tuple[str, ...]
) -> None:
    assert rules.announced(listening, announce, "me") == told
