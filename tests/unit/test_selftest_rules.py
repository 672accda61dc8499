# SPDX-License-Identifier: Apache-2.0
"""Self-tests: what each finding means, and that whatever does not pass says what to do."""

from dataclasses import replace

import msgspec
import pytest

from qubix_node.selftest import rules
from qubix_node.selftest.rules import Gateway, Ran, Way
from qubix_protocol.messages import Device, KernelRate, Sample
from qubix_protocol.selftest import CHECKS_MAX, Check, CheckStatus, SelfTest, failing, summary
from qubix_protocol.states import DeviceKind

GIB = 1024**3
CARD = Device(
    device_id="GPU-1",
    kind=DeviceKind.CUDA,
    model="A card",
    memory_bytes=8 * GIB,
    driver="580.95.05",
    cuda="13.0",
    compute_capability="8.6",
    backends=("cuda",),
)
CPU = Device(device_id="cpu-1", kind=DeviceKind.CPU, model="A CPU", memory_bytes=8 * GIB, backends=("cpu",))
PASS, WARN, FAIL, SKIP = CheckStatus.PASS, CheckStatus.WARN, CheckStatus.FAIL, CheckStatus.SKIP


def changed(device: Device, **to: object) -> Device:
    return msgspec.structs.replace(device, **to)


def reading(used_gib: float, **more: object) -> Sample:
    return Sample(at_ms=1, memory_used_bytes=round(used_gib * GIB), memory_total_bytes=8 * GIB, **more)  # type: ignore[arg-type]


def rate(kernel: str = "matmul", backend: str = "cpu") -> KernelRate:
    return KernelRate(kernel=kernel, backend=backend, flops_per_s=5e10, bytes_per_s=1e9)


JUDGED: list[tuple[str, Check, CheckStatus]] = [
    ("a new driver", rules.driver(CARD, 13), PASS),
    ("an old driver", rules.driver(changed(CARD, driver="535.1"), 13), FAIL),
    ("old but enough for CUDA 12", rules.driver(changed(CARD, driver="535.1"), 12), PASS),
    ("no driver told", rules.driver(changed(CARD, driver=""), 13), FAIL),
    ("a processor's driver", rules.driver(CPU, None), SKIP),
    ("CUDA", rules.cuda(CARD, 13), PASS),
    ("no CUDA parts", rules.cuda(CARD, None), FAIL),
    ("a card that cannot", rules.cuda(changed(CARD, backends=()), 13), FAIL),
    ("a processor's CUDA", rules.cuda(CPU, None), SKIP),
    ("an empty card", rules.memory(CARD, reading(0.5), 0), PASS),
    ("a card with a display", rules.memory(CARD, reading(1.5), 0), FAIL),
    ("a mute card", rules.memory(CARD, Sample(at_ms=1), 0), WARN),
    ("a card that hangs", rules.memory(CARD, None, 0), WARN),
    ("a free processor", rules.memory(CPU, reading(4), 6 * GIB), PASS),
    ("a full processor", rules.memory(CPU, reading(6), 6 * GIB), WARN),
    ("cool", rules.thermals([reading(1, temperature_c=60.0), reading(1, temperature_c=79.9)]), PASS),
    ("warm", rules.thermals([reading(1, temperature_c=60.0), reading(1, temperature_c=80.0)]), WARN),
    ("hot", rules.thermals([reading(1, temperature_c=90.0)]), FAIL),
    ("cool but slowed", rules.thermals([reading(1, temperature_c=60.0, throttle=("hw_thermal",))]), FAIL),
    ("limited by its owner", rules.thermals([reading(1, temperature_c=60.0, throttle=("power_cap", "idle"))]), PASS),
    ("no sensor", rules.thermals([reading(1)]), SKIP),
    ("much disk", rules.disk(10 * GIB), PASS),
    ("some disk", rules.disk(10 * GIB - 1), WARN),
    ("no disk", rules.disk(2 * GIB - 1), FAIL),
    ("a wide way", rules.bandwidth(Way(up=1e6, down=1e8)), PASS),
    ("a narrow way up", rules.bandwidth(Way(up=9e5, down=1e8)), WARN),
    ("hardly a way down", rules.bandwidth(Way(up=1e8, down=9e4)), FAIL),
    ("no way", rules.bandwidth(Way(problem="it does not answer")), FAIL),
    ("no way to be had", rules.bandwidth(Way(problem="alone", applies=False)), SKIP),
    ("a right clock", rules.clock(-2_000), PASS),
    ("a wrong clock decides nothing", rules.clock(3_600_000), WARN),
    ("nobody's clock", rules.clock(None), WARN),
    ("a near gateway", rules.mesh([Gateway("a", 20.0)]), PASS),
    ("a far gateway", rules.mesh([Gateway("a", 301.0)]), WARN),
    ("one of two gateways", rules.mesh([Gateway("a", None, "refused"), Gateway("b", 20.0)]), WARN),
    ("no gateway that answers", rules.mesh([Gateway("a", None, "refused")]), FAIL),
    ("no gateway", rules.mesh([]), FAIL),
    ("a box", rules.box("box", ""), PASS),
    ("no box", rules.box("limited", "bubblewrap is missing"), WARN),
    ("a right kernel", rules.kernel(Ran("knn", "cuda", 1.0)), PASS),
    ("a wrong kernel", rules.kernel(Ran("knn", "cuda", 1.0, "wrong result")), FAIL),
    ("a wrong kernel on a processor", rules.kernel(Ran("knn", "cpu", 1.0, "wrong result")), FAIL),
    ("a kernel that is not installed", rules.kernel(Ran("onnx", "cuda", problem="no provider", absent=True)), WARN),
    ("all rates", rules.rates([rate(), rate("knn")], {"matmul": {"cpu"}, "knn": {"cpu"}}), PASS),
    ("a rate is missing", rules.rates([rate()], {"matmul": {"cpu"}, "knn": {"cpu"}}), WARN),
    ("rates of another back end", rules.rates([rate(backend="cuda")], {"matmul": {"cpu"}}), FAIL),
]


def test_what_is_measured_ends_with_the_number_that_has_the_unit() -> None:
    """Whoever shows a check writes its unit behind `actual`."""
    said = rules.mesh([Gateway("a", 20.0), Gateway("b", 7.4)])
    assert (said.actual, said.unit) == ("2 of 2 gateways, the nearest at 7", "ms")


@pytest.mark.parametrize(("check", "status"), [case[1:] for case in JUDGED], ids=[case[0] for case in JUDGED])
def test_a_finding_is_judged_and_what_is_wrong_has_a_remedy(check: Check, status: CheckStatus) -> None:
    assert check.status is status
    assert bool(check.remedy) is (status in (WARN, FAIL))
    assert check.purpose
    assert check.actual
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(check), type=Check) == check


def test_what_waits_for_a_free_device_makes_a_test_partial_and_what_never_applies_does_not() -> None:
    whole = [rules.driver(CPU, None), rules.cuda(CPU, None), rules.thermals([]), rules.disk(10 * GIB)]
    assert rules.full(whole, quick=False)
    assert not rules.full(whole, quick=True)
    assert not rules.full([*whole, rules.kernels_skipped("the device is rented")], quick=False)
    assert not rules.full([*whole, rules.bandwidth(Way(problem="alone", applies=False))], quick=False)


def test_the_summary_names_what_fails_first_and_what_to_do() -> None:
    good, warm, bad = rules.disk(10 * GIB), rules.clock(3_600_000), rules.mesh([])
    assert summary([good, good]) == "2 checks passed"
    assert summary([good, warm]) == f"Clock: -3600.0. {warm.remedy}"
    assert summary([warm, bad, good]) == f"Mesh: no gateway is known. {bad.remedy}"
    assert summary([bad, bad]) == f"Mesh: no gateway is known (and 1 more). {bad.remedy}"
    assert failing([good, bad, warm]) == (bad,)


def test_a_self_test_is_bounded() -> None:
    def sent(count: int) -> SelfTest:
        one = SelfTest(
            test_id="00000000-0000-0000-0000-00000000000a",
            device_id="cpu-1",
            at_ms=1,
            took_ms=1,
            quick=False,
            full=True,
            checks=(rules.disk(GIB),) * count,
        )
        return msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=SelfTest)

    assert not sent(CHECKS_MAX).passed
    for count in (0, CHECKS_MAX + 1):
        with pytest.raises(msgspec.ValidationError):
            sent(count)


def test_long_words_of_a_problem_still_fit_into_a_check() -> None:
    check = rules.kernel(replace(Ran("knn", "cpu"), problem="x" * 5_000))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(check), type=Check).actual == "x" * 200
