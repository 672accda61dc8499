# SPDX-License-Identifier: Apache-2.0
"""What each finding means: pass, warn, fail or skip, and what a newcomer does about it. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qubix_node.gpu.rules import DRIVER_MIN, driver_branch
from qubix_protocol.messages import Device, KernelRate, Sample
from qubix_protocol.selftest import Check, CheckStatus
from qubix_protocol.states import DeviceKind, Throttle

GIB: Final = 1024**3
FREE_VRAM_SHARE: Final = 0.92
"""A trial fills nine tenths of what the card is offered with; the driver's own context takes some, too."""
HOT_C: Final = 90.0
WARM_C: Final = 80.0
DISK_MIN_BYTES: Final = 2 * GIB
DISK_GOOD_BYTES: Final = 10 * GIB
BANDWIDTH_MIN: Final = 100_000
BANDWIDTH_GOOD: Final = 1_000_000
CLOCK_MS_GOOD: Final = 2_000
ROUND_TRIP_MS_GOOD: Final = 300.0
SLOWED: Final = frozenset({Throttle.HW_SLOWDOWN, Throttle.HW_THERMAL, Throttle.POWER_BRAKE, Throttle.THERMAL})
"""What lowers a clock because something is wrong; a power limit is the owner's own choice."""

PASS, WARN, FAIL, SKIP = CheckStatus.PASS, CheckStatus.WARN, CheckStatus.FAIL, CheckStatus.SKIP


@dataclass(frozen=True, slots=True)
class Gateway:
    """`round_trip_ms` None: it did not answer, and `problem` says how."""

    address: str
    round_trip_ms: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Way:
    """Bytes per second to the store and back; `problem` says why there are none."""

    up: float = 0.0
    down: float = 0.0
    problem: str = ""
    applies: bool = True


@dataclass(frozen=True, slots=True)
class Ran:
    """One kernel on one back end; `problem` "" when its own verifier accepted the result. `absent`: what it needs is
    not installed here, so that the device is offered without it."""

    kernel: str
    backend: str
    run_ms: float = 0.0
    problem: str = ""
    absent: bool = False


_DEVICES: Final = {DeviceKind.CPU: "processor", DeviceKind.WEBGPU: "card behind WebGPU"}


def driver(device: Device, toolkit: int | None) -> Check:
    """`toolkit`: major version of the CUDA parts beside the node."""
    about = {"id": "driver", "title": "Driver", "purpose": "CUDA kernels need a driver that is new enough for them."}
    if device.kind is DeviceKind.WEBGPU:
        return Check(**about, status=SKIP, actual=device.driver or "none told")
    if device.kind is not DeviceKind.CUDA:
        return Check(**about, status=SKIP, actual="a processor needs none")
    branch, least = driver_branch(device.driver), DRIVER_MIN.get(toolkit or 12, max(DRIVER_MIN.values()))
    good = branch is not None and branch >= least
    return Check(
        **about,
        status=PASS if good else FAIL,
        actual=device.driver or "none told",
        required=f"r{least} or newer",
        remedy="" if good else f"Install NVIDIA's driver r{least} or newer, then restart this machine.",
    )


def cuda(device: Device, toolkit: int | None) -> Check:
    about = {"id": "cuda", "title": "CUDA", "purpose": "Kernels are compiled for the card on this machine."}
    if device.kind is not DeviceKind.CUDA:
        return Check(**about, status=SKIP, actual=f"a {_DEVICES[device.kind]} needs none")
    if toolkit is None:
        return Check(
            **about,
            status=FAIL,
            actual="no CUDA parts",
            required="CUDA 12 or 13",
            remedy="Install qubix with the extra cuda13 (or cuda12 for drivers below r580).",
        )
    runs = "cuda" in device.backends
    return Check(
        **about,
        status=PASS if runs else FAIL,
        actual=f"CUDA {toolkit}, driver for {device.cuda or '?'}, capability {device.compute_capability or '?'}",
        required="capability 7.5 or higher",
        remedy="" if runs else "See the log line gpu.not_rentable of `qubix node`: it names what is in the way.",
    )


def memory(device: Device, reading: Sample | None, budget_bytes: int) -> Check:
    """Of a card what is free of what it is offered with; of a processor what its workers may use."""
    about = {"id": "memory", "title": "Free memory", "unit": "GiB"}
    purpose = "A renter gets the memory that the offer names."
    if reading is None or reading.memory_used_bytes is None or reading.memory_total_bytes is None:
        return Check(
            **about,
            purpose=purpose,
            status=WARN,
            actual="not told",
            remedy="The driver does not tell its memory: see that nothing else takes much of it.",
        )
    card = device.kind is not DeviceKind.CPU
    free = reading.memory_total_bytes - reading.memory_used_bytes
    wanted = round(FREE_VRAM_SHARE * device.memory_bytes) if card else budget_bytes // 2
    tool = "`nvidia-smi` lists them" if device.kind is DeviceKind.CUDA else "a browser, a game"
    close = f"Close programs that use the card ({tool}), or move the display to another one."
    lower = "Close other programs, or offer less with QUBIX_NODE_MEMORY_BYTES."
    status = PASS if free >= wanted else FAIL if card else WARN
    return Check(
        **about,
        purpose=purpose,
        status=status,
        actual=_gib(free),
        required=_gib(wanted),
        remedy="" if status is PASS else (close if card else lower),
    )


def thermals(readings: Sequence[Sample]) -> Check:
    """`readings` were taken while kernels ran."""
    about = {"id": "thermals", "title": "Heat under load", "unit": "°C"}
    purpose = "A card that is too hot slows down, and so does every job on it."
    told = [one.temperature_c for one in readings if one.temperature_c is not None]
    slowed = sorted({word for one in readings for word in one.throttle or () if word in SLOWED})
    if not told and not slowed:
        return Check(**about, purpose=purpose, status=SKIP, actual="no sensor tells")
    hottest = max(told, default=0.0)
    status = FAIL if slowed or hottest >= HOT_C else WARN if hottest >= WARM_C else PASS
    actual = f"{hottest:.0f}" + (f", slowed by {', '.join(slowed).replace('_', ' ')}" if slowed else "")
    return Check(
        **about,
        purpose=purpose,
        status=status,
        actual=actual,
        required=f"below {WARM_C:.0f}, not slowed",
        remedy="" if status is PASS else "Clean its fans and filters, give it air, or lower its power limit.",
    )


def disk(free_bytes: int) -> Check:
    status = FAIL if free_bytes < DISK_MIN_BYTES else WARN if free_bytes < DISK_GOOD_BYTES else PASS
    return Check(
        id="disk",
        title="Free disk",
        unit="GiB",
        purpose="Inputs and results of jobs lie on it while they run.",
        status=status,
        actual=_gib(free_bytes),
        required=_gib(DISK_GOOD_BYTES),
        remedy="" if status is PASS else "Free some space, or put the node on a larger disk with QUBIX_DATA_DIR.",
    )


def bandwidth(way: Way) -> Check:
    slowest = min(way.up, way.down)
    status = (SKIP if not way.applies else FAIL) if way.problem else PASS
    if not way.problem and slowest < BANDWIDTH_GOOD:
        status = FAIL if slowest < BANDWIDTH_MIN else WARN
    unreachable = "Check that this machine reaches the coordinator's address, then test again."
    slow = "Use a faster line, or one that less else is using."
    return Check(
        id="bandwidth",
        title="Way to the store",
        unit="MB/s",
        purpose="Inputs come and results go this way; a slow one keeps jobs waiting.",
        status=status,
        actual=way.problem[:200] or f"{way.up / 1e6:.1f} up, {way.down / 1e6:.1f} down",
        required=f"{BANDWIDTH_GOOD / 1e6:g} each way",
        remedy="" if status is PASS or status is SKIP else unreachable if way.problem else slow,
    )


def clock(offset_ms: int | None) -> Check:
    """`offset_ms`: the coordinator's clock less this machine's, as the handshake told it."""
    about = {"id": "clock", "title": "Clock", "unit": "s"}
    purpose = "The market judges by its own clock; a wrong one here only makes logs and certificates hard to read."
    if offset_ms is None:
        remedy = "Start the coordinator, or set QUBIX_COORDINATOR_URL to the one you mean."
        return Check(**about, purpose=purpose, status=WARN, actual="nobody to compare with", remedy=remedy)
    good = abs(offset_ms) <= CLOCK_MS_GOOD
    return Check(
        **about,
        purpose=purpose,
        status=PASS if good else WARN,
        actual=f"{-offset_ms / 1000:+.1f}",
        required=f"within {CLOCK_MS_GOOD / 1000:g}",
        remedy="" if good else "Let the system set its time: `timedatectl set-ntp true`.",
    )


def mesh(gateways: Sequence[Gateway]) -> Check:
    about = {"id": "mesh", "title": "Mesh", "unit": "ms"}
    purpose = "Work is assigned and answered through a gateway; with two the loss of one costs nothing."
    there = [one for one in gateways if one.round_trip_ms is not None]
    if not there:
        why = next((one.problem for one in gateways if one.problem), "no gateway is known")
        remedy = "Let this machine connect out to the gateway's TCP port, or name one in QUBIX_BOOTSTRAP."
        return Check(**about, purpose=purpose, status=FAIL, actual=why[:200], required="one gateway", remedy=remedy)
    best = min(one.round_trip_ms or 0.0 for one in there)
    missing = len(gateways) - len(there)
    status = PASS if best <= ROUND_TRIP_MS_GOOD and not missing else WARN
    far = f"The nearest gateway is far away: name a nearer one in QUBIX_BOOTSTRAP (aim: {ROUND_TRIP_MS_GOOD:g} ms)."
    gone = "A gateway does not answer: its operator may be restarting it; the others are used meanwhile."
    return Check(
        **about,
        purpose=purpose,
        status=status,
        actual=f"{len(there)} of {len(gateways)} gateways, the nearest at {best:.0f}",
        required=f"all, within {ROUND_TRIP_MS_GOOD:g}",
        remedy="" if status is PASS else (gone if missing else far),
    )


def box(kind: str, reason: str) -> Check:
    boxed = kind == "box"
    return Check(
        id="box",
        title="Isolation of jobs",
        purpose="Strangers' work runs on this machine: a box keeps it from your files, network and other cards.",
        status=PASS if boxed else WARN,
        actual="a box" if boxed else "a limited process",
        required="a box",
        remedy="" if boxed else f"No box can be made here: {reason}."[:500],
    )


def kernel(ran: Ran) -> Check:
    here = "WebGPU" if ran.backend == "webgpu" else ran.backend.upper()
    return Check(
        id=f"kernel_{ran.kernel}_{ran.backend}"[:64],
        title=f"{ran.kernel} on {here}",
        unit="ms",
        purpose="A small seeded instance, computed in a worker and judged by the kernel's own verifier.",
        status=WARN if ran.absent else FAIL if ran.problem else PASS,
        actual=ran.problem[:200] or f"right, in {ran.run_ms:.1f}",
        required="a result that its verifier accepts",
        remedy=_kernel_remedy(ran) if ran.problem else "",
    )


def _kernel_remedy(ran: Ran) -> str:
    if ran.absent:
        return "Nothing has to be done: this device is offered without this kernel. With what it needs, test again."
    if ran.backend == "cuda":
        return "Update driver and CUDA parts, undo overclocking, then test again; else this card computes wrongly."
    if ran.backend == "webgpu":
        return "Update this card's driver, undo overclocking, then test again; else this card computes wrongly."
    return "Install qubix anew (`make setup`); if it stays, test this machine's memory."


def kernels_skipped(why: str) -> Check:
    return Check(
        id="kernels",
        title="Kernels",
        purpose="Each kernel is run on each back end and its result checked.",
        status=SKIP,
        actual=why,
    )


def rates(found: Sequence[KernelRate], wanted: Mapping[str, Collection[str]]) -> Check:
    """`wanted`: back ends of this device by kernel. Forecasts, and so assignments, come from measured rates."""
    pairs = {(name, backend) for name, backends in wanted.items() for backend in backends}
    have = {(one.kernel, one.backend) for one in found} & pairs
    missing = sorted(f"{name} on {backend}" for name, backend in pairs - have)
    matmul = max((one.flops_per_s for one in found if one.kernel == "matmul"), default=0.0)
    status = FAIL if not have else WARN if missing else PASS
    actual = f"{len(have)} of {len(pairs)}" + (f", matmul {matmul / 1e9:,.0f} GFLOP/s" if matmul else "")
    lacking = f"Not measured: {', '.join(missing)[:300]}. The log line rates.not_measured says why."
    return Check(
        id="rates",
        title="Measured rates",
        purpose="Nobody is assigned a job whose time here cannot be forecast.",
        status=status,
        actual=actual,
        required="every kernel that runs here",
        remedy="" if status is PASS else lacking,
    )


def full(checks: Sequence[Check], *, quick: bool) -> bool:
    """Whether everything that applies was looked at: what is skipped for a reason of the moment is not."""
    never = {"driver", "cuda", "thermals"}
    return not quick and not any(check.status is SKIP and check.id not in never for check in checks)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"
