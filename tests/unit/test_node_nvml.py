# SPDX-License-Identifier: Apache-2.0
"""NVIDIA detection and sampling against a stand-in libnvidia-ml that fails on demand, call by call and card by card."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qubix_node.gpu import reading, rules
from qubix_protocol.states import Throttle
from tests.support import nvml

GIB = 1 << 30
FIRST, SECOND = (f"GPU-00000000-0000-0000-0000-{number:012d}" for number in range(2))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


def play(
    library: Path | None,
    folder: Path,
    *steps: dict[str, Any],
    start: dict[str, int] | None = None,
    toolkit: int | None = 13,
) -> Any:
    return many(library, folder, plan(*steps, start=start, toolkit=toolkit))[0]


def plan(*steps: dict[str, Any], start: dict[str, int] | None = None, toolkit: int | None = 13) -> dict[str, Any]:
    return {"start": start or {}, "steps": steps, "toolkit": toolkit}


def many(library: Path | None, folder: Path, *plans: dict[str, Any]) -> Any:
    """Several scenes in one process, the driver started anew for each."""
    return nvml.play("scenes", library, folder, plans)


# What a card is -----------------------------------------------------------------------------------------------------


def test_cards_are_described_in_full(library: Path, tmp_path: Path) -> None:
    (scene,) = play(library, tmp_path, {})
    first, second = scene["devices"]
    assert first == {
        "device_id": FIRST,
        "kind": "cuda",
        "model": "Test Card 0",
        "memory_bytes": 24 * GIB,
        "cores": 16384,
        "driver": "580.95.05",
        "cuda": "13.1",
        "compute_capability": "8.9",
        "backends": ["cuda"],
        "fallback": False,
    }
    assert second["device_id"] == SECOND
    assert scene["reason"] == ""


def test_the_order_of_cards_is_that_of_their_ids_whatever_index_they_have(library: Path, tmp_path: Path) -> None:
    orders = [
        [
            device["device_id"]
            for device in play(library, tmp_path, {}, start={"count": 4, "reversed": reverse})[0]["devices"]
        ]
        for reverse in (0, 1)
    ]
    assert len(orders[0]) == 4
    assert orders[0] == orders[1] == sorted(orders[0])


def test_a_card_that_cannot_be_described_leaves_the_others(library: Path, tmp_path: Path) -> None:
    calls = ["DeviceGetHandleByIndex", "DeviceGetUUID", "DeviceGetName", "DeviceGetMemoryInfo"]
    for (scene,) in many(library, tmp_path, *(plan({}, start={f"fail.{call}.0": 999}) for call in calls)):
        assert [device["device_id"] for device in scene["devices"]] == [SECOND]
        assert "GPU 0 does not answer: Unknown Error" in scene["reason"]


def test_a_card_that_is_counted_and_not_there_leaves_the_others(library: Path, tmp_path: Path) -> None:
    """The count changes between two calls when a card falls off the bus."""
    (scene,) = play(library, tmp_path, {}, start={"count": 3, "present": 2})
    assert [device["device_id"] for device in scene["devices"]] == [FIRST, SECOND]
    assert "GPU 2 does not answer" in scene["reason"]


def test_a_driver_without_cards_says_so(library: Path, tmp_path: Path) -> None:
    (scene,) = play(library, tmp_path, {}, start={"count": 0})
    assert scene["devices"] == []
    assert "sees no GPU" in scene["reason"]


def test_a_driver_that_does_not_start_is_a_reason_not_a_crash(library: Path, tmp_path: Path) -> None:
    reasons = [
        ({"init_error": 9}, "not loaded"),
        ({"init_error": 4}, "may not use"),
        ({"init_error": 18}, "updated under a running system"),
        ({"init_error": 999}, "NVML does not start: Unknown Error"),
        ({"fail.DeviceGetCount": 18}, "updated under a running system"),
    ]
    told = many(library, tmp_path, *(plan({}, start=start) for start, _ in reasons))
    for (scene,), (_, said) in zip(told, reasons, strict=True):
        assert scene["devices"] == []
        assert said in scene["reason"]


def test_without_a_driver_there_are_no_cards_and_a_reason(tmp_path: Path) -> None:
    """On a machine with a real driver the real cards answer instead."""
    (scene,) = play(None, tmp_path, {})
    assert bool(scene["devices"]) != bool(scene["reason"])


# What it does now ---------------------------------------------------------------------------------------------------


def test_samples_follow_the_gauges(library: Path, tmp_path: Path) -> None:
    moved = {
        "util": 93,
        "util_mem": 61,
        "mem_used": 20 * GIB,
        "temp": 77,
        "power_mw": 410_000,
        "power_limit_mw": 420_000,
        "clock_mhz": 2520,
        "memory_clock_mhz": 9501,
        "fan": 120,
        "throttle": 0x4 | 0x20,
        "pcie_rx_kb": 3,
        "pcie_tx_kb": 5,
        "ecc": 2,
        "remapped": 1,
    }
    before, after = play(library, tmp_path, {}, moved)
    assert before["samples"][0]["utilisation_pct"] == 7
    assert before["samples"][0]["throttle"] == ["idle"]
    after["samples"][0].pop("at_ms")
    assert after["samples"][0] == {
        "utilisation_pct": 93,
        "memory_busy_pct": 61,
        "memory_used_bytes": 20 * GIB,
        "memory_total_bytes": 24 * GIB,
        "temperature_c": 77,
        "power_mw": 410_000,
        "power_limit_mw": 420_000,
        "clock_mhz": 2520,
        "memory_clock_mhz": 9501,
        "fan_pct": 100,
        "throttle": ["power_cap", "thermal"],
        "pcie_rx_bytes_per_s": 3072,
        "pcie_tx_bytes_per_s": 5120,
        "processes": 0,
        "foreign_processes": 0,
        "foreign_memory_bytes": 0,
        "ecc_errors": 2,
        "retired_pages": 1,
        "xid": None,
    }


def test_each_card_has_its_own_gauges(library: Path, tmp_path: Path) -> None:
    (scene,) = play(library, tmp_path, {"temp.0": 50, "temp.1": 60})
    assert [sample["temperature_c"] for sample in scene["samples"]] == [50, 60]


UNSUPPORTED = {
    "power_mw": "power_mw",
    "power_limit_mw": "power_limit_mw",
    "clock_mhz": "clock_mhz",
    "memory_clock_mhz": "memory_clock_mhz",
    "temp": "temperature_c",
    "util": "utilisation_pct",
    "fan": "fan_pct",
    "throttle": "throttle",
    "pcie_rx_kb": "pcie_rx_bytes_per_s",
    "processes": "processes",
    "ecc": "ecc_errors",
    "retired": "retired_pages",
}


def test_what_a_card_does_not_tell_is_none(library: Path, tmp_path: Path) -> None:
    (scene,) = play(library, tmp_path, dict.fromkeys(UNSUPPORTED, -1))
    sample = scene["samples"][0]
    assert {name: sample[name] for name in UNSUPPORTED.values()} == dict.fromkeys(UNSUPPORTED.values())
    assert sample["memory_used_bytes"] == GIB


READS = [
    "DeviceGetUtilizationRates",
    "DeviceGetMemoryInfo",
    "DeviceGetTemperatureV",
    "DeviceGetPowerUsage",
    "DeviceGetEnforcedPowerLimit",
    "DeviceGetClockInfo",
    "DeviceGetFanSpeed",
    "DeviceGetPcieThroughput",
    "DeviceGetCurrentClocksEventReasons",
    "DeviceGetComputeRunningProcesses",
    "DeviceGetTotalEccErrors",
    "DeviceGetRetiredPages",
    "EventSetWait",
]


def test_a_call_that_fails_takes_nothing_else_with_it(library: Path, tmp_path: Path) -> None:
    """Not supported, not permitted, unknown: each call by itself, on one card of two."""
    failing = [(call, code) for code in (3, 4, 999) for call in READS]
    scenes = play(library, tmp_path, {}, *({f"fail.{call}.0": code} for call, code in failing))
    whole = _told(scenes[0]["samples"][0])
    for call, scene in zip(failing, scenes[1:], strict=True):
        assert len(scene["after"]) == 2, call
        assert len(whole) - len(_told(scene["samples"][0])) <= 3, call
        assert _told(scene["samples"][1]) == whole, call


def _told(sample: dict[str, Any]) -> set[str]:
    return {name for name, value in sample.items() if value is not None}


def test_what_an_older_driver_does_not_know_is_asked_the_old_way(library: Path, tmp_path: Path) -> None:
    unknown = {"fail.DeviceGetTemperatureV": 13, "fail.DeviceGetCurrentClocksEventReasons": 13}
    unknown |= {"fail.DeviceGetEnforcedPowerLimit": 13, "throttle": 0x40, "temp": 71}
    (scene,) = play(library, tmp_path, unknown)
    sample = scene["samples"][0]
    assert (sample["temperature_c"], sample["throttle"], sample["power_limit_mw"]) == (71, ["hw_thermal"], 450_000)


def test_a_broken_sensor_does_not_spoil_the_reading(library: Path, tmp_path: Path) -> None:
    """The coordinator would refuse the whole message."""
    (scene,) = play(library, tmp_path, {"temp": 511, "ecc": 2**62})
    sample = scene["samples"][0]
    assert (sample["temperature_c"], sample["ecc_errors"]) == (None, None)
    assert sample["utilisation_pct"] == 7


def test_other_peoples_processes_are_counted_and_not_named(library: Path, tmp_path: Path) -> None:
    mine, others = play(
        library,
        tmp_path,
        {"processes": 1, "pid": nvml.OWN_PID, "process_mem": 5 * GIB},
        {"processes": 3, "pid": 4_194_300, "process_mem": 2 * GIB},
    )
    told = [
        [scene["samples"][0][name] for name in ("processes", "foreign_processes", "foreign_memory_bytes")]
        for scene in (mine, others)
    ]
    assert told == [[1, 0, 0], [3, 3, 6 * GIB]]
    assert "419430" not in str([{**sample, "at_ms": 0} for sample in others["samples"]])


def test_the_box_is_told_the_card_s_own_device_node_and_who_computes_on_it(library: Path, tmp_path: Path) -> None:
    start = {"minor.0": 5, "minor.1": -1}
    quiet, busy = play(library, tmp_path, {}, {"processes.1": 2, "pid": 4_194_300}, start=start)
    assert quiet["minors"] == busy["minors"] == [5, None]
    assert quiet["pids"] == [[], []]
    assert busy["pids"][0] == []
    assert sorted(busy["pids"][1]) == [4_194_300, 4_194_301]


def test_every_throttle_bit_is_a_word() -> None:
    assert reading.throttle(0) == ()
    assert set(reading.throttle(0x1FF)) == set(Throttle) - {Throttle.OTHER}
    assert reading.throttle(0x8 | 1 << 40) == ("hw_slowdown", "other")


# Cards that go ------------------------------------------------------------------------------------------------------


def test_a_lost_card_is_gone_and_the_other_goes_on(library: Path, tmp_path: Path) -> None:
    scene, after = play(library, tmp_path, {"lost": 0}, {})
    assert scene["samples"][0] is None
    assert scene["samples"][1]["temperature_c"] == 41
    assert [device["model"] for device in scene["after"]] == ["Test Card 1"]
    assert "Test Card 0 is lost" in scene["reason"]
    assert scene["lost"] == {FIRST: "GPU is lost", SECOND: ""}
    assert [device["model"] for device in after["devices"]] == ["Test Card 1"], "it stays gone"


def test_a_card_may_be_lost_at_any_call(library: Path, tmp_path: Path) -> None:
    plans = [plan({}, {f"fail.{call}.1": 15}) for call in READS]
    for before, scene in many(library, tmp_path, *plans):
        assert all(before["samples"])
        assert (bool(scene["samples"][0]), scene["samples"][1]) == (True, None)


def test_a_driver_that_was_taken_away_takes_its_cards(library: Path, tmp_path: Path) -> None:
    """Unloaded, to be reset, or replaced by another version under the running node."""
    plans = [plan({f"fail.{call}": code for call in READS}) for code in (1, 9, 16, 18)]
    assert [scene["after"] for (scene,) in many(library, tmp_path, *plans)] == [[]] * 4


def test_a_driver_that_answers_nothing_gives_no_reading(library: Path, tmp_path: Path) -> None:
    """It may come back: only the sampler's deadline takes the card off the market."""
    silent, after = play(
        library,
        tmp_path,
        {
            f"fail.{call}.0": 999
            for call in [
                *READS,
                "DeviceGetTemperature",
                "DeviceGetPowerManagementLimit",
                "DeviceGetCurrentClocksThrottleReasons",
                "DeviceGetRemappedRows",
            ]
        },
        {},
    )
    assert "NoReading" in silent["samples"][0]
    assert after["samples"][0]["temperature_c"] == 41


def test_a_critical_error_of_the_card_takes_it_off_the_market(library: Path, tmp_path: Path) -> None:
    before, scene, after = play(library, tmp_path, {}, {"xid.0": 79}, {})
    assert before["samples"][0]["xid"] is None
    assert scene["samples"][0] is None
    assert "Xid 79" in scene["lost"][FIRST]
    assert [device["device_id"] for device in after["devices"]] == [SECOND], "nothing brings it back"


def test_a_critical_error_of_a_program_is_told_and_the_card_stays(library: Path, tmp_path: Path) -> None:
    """Else whoever submits a job that reads out of bounds, or is cancelled, would end a stranger's business."""
    scene, again = play(library, tmp_path, {"xid.1": 31}, {"xid.1": 48, "xid_count.1": 2})
    assert scene["samples"][1]["xid"] == 31
    assert again["samples"][1] is None
    assert {13, 31, 43, 45} <= rules.APPLICATION_XIDS
    assert all(rules.condemns(xid) for xid in (48, 62, 63, 64, 74, 79, 94, 95, 119, 1_000_000))


def test_a_driver_without_events_is_read_all_the_same(library: Path, tmp_path: Path) -> None:
    without = [{"events": 0}, {"fail.EventSetCreate": 3}, {"fail.DeviceRegisterEvents": 3}]
    for (scene,) in many(library, tmp_path, *(plan({"xid": 79}, start=start) for start in without)):
        assert scene["samples"][0]["temperature_c"] == 41


@pytest.mark.parametrize("call", ["DeviceGetTemperatureV", "DeviceGetMemoryInfo", "EventSetWait"])
def test_a_card_whose_driver_hangs_goes_off_the_market_and_the_others_are_read(
    library: Path, tmp_path: Path, call: str
) -> None:
    scene = nvml.play("watched", library, tmp_path, {f"hang.{call}.0": 1}, 3.0)
    assert (scene["left"], scene["gone"]) == (SECOND, [FIRST])
    assert scene["reasons"] == [[FIRST, "the driver did not answer within 3 s"]]


def test_a_card_that_is_lost_while_it_is_watched_is_told_once(library: Path, tmp_path: Path) -> None:
    scene = nvml.play("watched", library, tmp_path, {"lost": 1}, 30.0)
    assert (scene["left"], scene["reasons"]) == (FIRST, [[SECOND, "GPU is lost"]])


# What can be rented -------------------------------------------------------------------------------------------------


UNFIT: list[tuple[dict[str, int], int | None, str]] = [
    ({"capability": 61}, 13, "6.1, and kernels need 7.5"),
    ({"capability": -1}, 13, "compute capability"),
    ({"driver": 575}, 13, "driver 575.95.05 is too old for CUDA 13, which needs r580: update the driver or install"),
    ({"driver": 520}, 12, "needs r525: update the driver"),
    ({"mig": 1}, 13, "nvidia-smi -mig 0"),
    ({"compute_mode": 2}, 13, "nvidia-smi -c 0"),
    ({}, None, "install qubix with the extra cuda13"),
]
FIT: list[tuple[dict[str, int], int]] = [
    ({"capability": 75}, 13),
    ({"capability": 120}, 13),
    ({"driver": 525}, 12),
    ({"mig": 0}, 13),
    ({"compute_mode": 3}, 13),
]


def test_a_card_that_cannot_run_kernels_is_shown_and_not_rented(library: Path, tmp_path: Path) -> None:
    plans = [plan({}, start={"count": 1, **start}, toolkit=toolkit) for start, toolkit, _ in UNFIT]
    for (scene,), (_, _, said) in zip(many(library, tmp_path, *plans), UNFIT, strict=True):
        (device,) = scene["devices"]
        assert device["backends"] == []
        assert said in scene["unfit"][FIRST]


def test_a_card_that_can_is_rented(library: Path, tmp_path: Path) -> None:
    plans = [plan({}, start={"count": 1, **start}, toolkit=toolkit) for start, toolkit in FIT]
    for (scene,) in many(library, tmp_path, *plans):
        assert (scene["devices"][0]["backends"], scene["unfit"]) == (["cuda"], {})


def test_exclusive_compute_mode_is_said_and_rented() -> None:
    card = rules.Card(capability=(9, 0), driver="580.95.05", mig=False, compute_mode=3)
    assert rules.unfit(card, 13) == ""
    assert "exclusive" in rules.remark(card)
    assert rules.remark(replace(card, compute_mode=0)) == rules.remark(replace(card, compute_mode=None)) == ""


def test_one_card_of_two_may_be_unfit(library: Path, tmp_path: Path) -> None:
    (scene,) = play(library, tmp_path, {}, start={"mig.0": 1})
    assert [device["backends"] for device in scene["devices"]] == [[], ["cuda"]]


# What is offered ----------------------------------------------------------------------------------------------------

CARD, BARE_CARD, CPU = ["cuda", ["cuda"]], ["cuda", []], ["cpu", ["cpu"]]


OFFERS: list[tuple[str, list[str], dict[str, int], object]] = [
    ("auto", ["cuda"], {"count": 1}, [CARD]),
    ("auto", [], {"count": 1}, [BARE_CARD, CPU]),
    ("auto", ["cuda"], {"count": 1, "capability": 61}, [BARE_CARD, CPU]),
    ("auto", ["cuda"], {"count": 2, "mig.1": 1}, [CARD, BARE_CARD]),
    ("auto", ["cuda"], {"count": 0}, [CPU]),
    ("auto", ["cuda"], {"init_error": 18}, [CPU]),
    ("gpu", ["cuda"], {"count": 2}, [CARD, CARD]),
    ("cpu", ["cuda"], {"count": 2}, [CPU]),
]
REFUSALS: list[tuple[dict[str, int], float, str]] = [
    ({"count": 0}, 30.0, "sees no GPU"),
    ({"count": 1, "mig": 1}, 30.0, "Test Card 0: MIG is on"),
    ({"hang.Init": 1}, 1.0, "did not answer within 1 s"),
    ({"hang.DeviceGetUUID.1": 1}, 1.0, "did not answer within 1 s"),
]


def test_what_is_offered_by_the_setting(library: Path, tmp_path: Path) -> None:
    """A card that cannot be rented is shown; where none can be, the CPU is offered beside it."""
    told = nvml.play("offers", library, tmp_path, [offer[:3] for offer in OFFERS])
    assert told == [offer[3] for offer in OFFERS]


def test_wanting_a_gpu_where_there_is_none_says_what_to_do(library: Path, tmp_path: Path) -> None:
    told = nvml.play("offers", library, tmp_path, [("gpu", ["cuda"], start, within) for start, within, _ in REFUSALS])
    for answer, (_, _, said) in zip(told, REFUSALS, strict=True):
        assert said in answer
        assert "QUBIX_NODE_DEVICES=cpu" in answer


def test_a_driver_that_hangs_at_the_start_leaves_the_cpu(library: Path, tmp_path: Path) -> None:
    """Detection always ends (P1)."""
    assert nvml.play("offers", library, tmp_path, [("auto", ["cuda"], {"hang.Init": 1}, 1.0)]) == [[CPU]]
