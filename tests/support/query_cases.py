# SPDX-License-Identifier: Apache-2.0
"""Listings and query lines made up by Hypothesis: values from small pools, so that they meet, tie and miss."""

import uuid
from typing import Any, Final

from hypothesis import strategies as st

from qubix_protocol.api import ListingView
from qubix_protocol.messages import Sample
from qubix_protocol.query import FIELDS, Field
from qubix_protocol.query.fields import ORDERED, SORTABLE, Kind
from qubix_protocol.states import Availability, DeviceKind, Isolation

MODELS: Final = (
    "NVIDIA GeForce RTX 4090",
    "NVIDIA H100 80GB HBM3",
    "AMD Radeon RX 7900 XTX",
    "rtx_4090",
    "Größe 100%",
    "A\\b 'x'",
)
DRIVERS: Final = ("", "580.65.06", "580.100", "580", "580.0", "Mesa 24.1", "535.183.01-server")
CUDAS: Final = ("", "12.9", "12.10", "13.0", "13")
CAPS: Final = ("", "8.9", "9.0", "12.0")
REGIONS: Final = ("", "eu", "EU", "us-west", "local")
COUNTRIES: Final = ("", "DE", "US", "FR")
BYTES: Final = (0, 8 * 10**9, 8 * 1024**3, 24 * 10**9, 24 * 1024**3, 25_757_220_864)
PEERS: Final = ("12D3KooWAlpha", "12D3KooWBravo", "12D3KooWcharlie")


def listing(number: int = 1, **changes: Any) -> ListingView:
    plain: dict[str, Any] = {
        "listing_id": str(uuid.UUID(int=number)),
        "provider": PEERS[0],
        "device_id": f"GPU-{number}",
        "kind": DeviceKind.CUDA,
        "model": MODELS[0],
        "memory_bytes": 24 * 1024**3,
        "cores": 128,
        "driver": "580.65.06",
        "cuda": "13.0",
        "compute_capability": "8.9",
        "backends": ("cuda", "cpu"),
        "rate_qu_per_h": 500,
        "region": "eu",
        "availability": Availability.AVAILABLE,
        "verified": True,
        "jobs_accepted": 3,
        "jobs_rejected": 0,
    }
    return ListingView(**(plain | changes))


def _maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


_SAMPLES: Final = st.builds(
    Sample,
    at_ms=st.just(1),
    utilisation_pct=_maybe(st.sampled_from([0.0, 12.5, 99.9, 100.0])),
    memory_used_bytes=_maybe(st.sampled_from([0, 10**9, 8 * 1024**3])),
    memory_total_bytes=_maybe(st.sampled_from([8 * 1024**3, 24 * 1024**3])),
    temperature_c=_maybe(st.sampled_from([-5.0, 0.1, 36.6, 80.0])),
    power_mw=_maybe(st.sampled_from([0, 75_000, 450_000])),
    clock_mhz=_maybe(st.sampled_from([210, 2_520])),
    power_limit_mw=_maybe(st.sampled_from([450_000])),
    fan_pct=_maybe(st.sampled_from([0.0, 30.0])),
)

listing_fields: Final = st.fixed_dictionaries(
    {
        "provider": st.sampled_from(PEERS),
        "kind": st.sampled_from(list(DeviceKind)),
        "model": st.sampled_from(MODELS),
        "memory_bytes": st.sampled_from(BYTES),
        "cores": st.sampled_from([0, 16, 128]),
        "driver": st.sampled_from(DRIVERS),
        "cuda": st.sampled_from(CUDAS),
        "compute_capability": st.sampled_from(CAPS),
        "backends": st.sampled_from([("cpu",), ("cuda", "cpu"), ("wgpu",), ()]),
        "rate_qu_per_h": st.sampled_from([0, 100, 100, 140, 500, 10**12]),
        "region": st.sampled_from(REGIONS),
        "availability": st.sampled_from([one for one in Availability if one is not Availability.OFFLINE]),
        "verified": st.booleans(),
        "jobs_accepted": st.sampled_from([0, 1, 50]),
        "jobs_rejected": st.sampled_from([0, 2]),
        "isolation": st.sampled_from(list(Isolation)),
        "cpu_cores": st.sampled_from([0, 8, 64]),
        "cpu_memory_bytes": st.sampled_from(BYTES),
        "disk_free_bytes": st.sampled_from(BYTES),
        "inet_down_bytes_per_s": st.sampled_from([0, 12_500_000, 125_000_000]),
        "inet_up_bytes_per_s": st.sampled_from([0, 12_500_000]),
        "notice_s": st.sampled_from([0, 600, 3600]),
        "country": st.sampled_from(COUNTRIES),
        "country_seen": st.booleans(),
        "browser": st.booleans(),
        "devices_alike": st.sampled_from([1, 2, 8]),
        "score": st.sampled_from([0.0, 0.1, 1500.0, 82_600.5]),
        "reliability": st.sampled_from([0.0, 0.5, 0.98, 1.0]),
        "metrics": _maybe(_SAMPLES),
        "stale": st.booleans(),
    }
).map(lambda one: one | {"browser": one["browser"] and one["kind"] is DeviceKind.WEBGPU})
"""Without ids; `stale` only where a test sets the age of the readings by it."""

_NUMBERS: Final = {
    "num_gpus": ("1", "2", "8"),
    "gpu_ram": ("8", "8GiB", "24g", "25757220864B", "1.1GiB"),
    "gpu_cores": ("16", "128", "1k"),
    "cpu_cores": ("8", "64"),
    "cpu_ram": ("8gb", "24GiB"),
    "disk_space": ("8", "0.024TB"),
    "inet_down": ("100", "100Mbps", "125MB/s", "1 Gbit/s"),
    "inet_up": ("100", "1Gbit/s"),
    "price": ("100", "140 QU/h", "0.5kQU/h", "1_000", "0", "10QU/d"),
    "score": ("1.5TFLOPS", "82600.5", "0.1 GFLOP/s"),
    "score_per_qu": ("3", "15", "165.201"),
    "reliability": ("98%", "0.5", "1"),
    "jobs_accepted": ("1", "50"),
    "jobs_rejected": ("0", "2"),
    "notice": ("10min", "1h", "600"),
    "utilisation": ("12.5", "99.9%", "100"),
    "memory_used": ("1", "8GiB"),
    "memory_free": ("16GiB", "8"),
    "temperature": ("-5", "0.1°C", "36.6", "80 C"),
    "power": ("75", "450W", "0.45kW"),
    "power_limit": ("450",),
    "clock": ("210", "2.52GHz"),
    "fan": ("30%", "0"),
}
_WORDS: Final = {
    "compute_cap": ("8.9", "9", "12.0"),
    "cuda_vers": ("12.9", "12.10", "13"),
    "driver_version": ("580", "580.65.06", "580.9"),
    "gpu_name": ("RTX_4090", '"geforce rtx 4090"', "'Größe 100%'", r'"A\\b \'x\'"', "H100"),
    "backend": ("cuda", "CPU", "wgpu"),
    "region": ("EU", "us-west", '"unknown"'),
    "country": ("de", "US", "FR"),
    "provider": PEERS,
    "device": ("GPU-1", "GPU-2"),
    "listing": (str(uuid.UUID(int=1)), str(uuid.UUID(int=2)).upper()),
}


_TEXTS: Final = ("rtx", '"RTX 4090"', "4090", '"%"', "e", "12D3KooWB", "größe", r'"\\b"', "stale", "58", "'_'")


def words_of(field: Field) -> tuple[str, ...]:
    if field.kind is Kind.YESNO:
        return ("true", "NO")
    return field.choices or _NUMBERS.get(field.name) or _WORDS[field.name]


@st.composite
def _term(draw: st.DrawFn) -> str:
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.sampled_from(
                ["rtx", '"RTX 4090"', "4090", "%", "e", "12D3KooWB", "größe", '"\\\\b"', "stale", "58"]
            ).filter(lambda one: one != "%")
        )
    field = FIELDS[draw(st.sampled_from(sorted(FIELDS)))]
    name = draw(st.sampled_from((field.name, *field.aliases)))
    word = st.sampled_from(words_of(field))
    form = draw(st.integers(0, 9))
    if form == 0:
        return f"{name}={draw(st.sampled_from(['any', 'unknown', 'UNKNOWN']))}"
    if form == 1:
        return f"{name} != unknown"
    if form in (2, 3):
        members = draw(st.lists(word, min_size=1, max_size=3))
        return f"{name} {draw(st.sampled_from(['in', 'notin', 'not  in', 'NOT IN']))} [{', '.join(members)}]"
    if form in (4, 5) and field.kind in ORDERED:
        end, op = draw(word), draw(st.sampled_from(["=", " in ", "!="]))
        return draw(st.sampled_from([f"({name}{op}{end}..)", f"{name}{op}..{end}", f"{name}{op}{end}..{end}"]))
    ops = ["<", "<=", "=", "==", "!=", ">=", " > "] if field.kind in ORDERED else ["=", "!=", " == "]
    return f"{name}{draw(st.sampled_from(ops))}{draw(word)}"


lines: Final = st.recursive(
    _term(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(" ".join),
        st.lists(inner, min_size=2, max_size=3).map(" and ".join),
        st.lists(inner, min_size=2, max_size=3).map(" OR ".join),
        inner.map(lambda one: f"not ({one})"),
        inner.map(lambda one: f"({one})"),
    ),
    max_leaves=6,
)
"""Query lines that are right."""


@st.composite
def orders(draw: st.DrawFn) -> str:
    """Order lines that are right."""
    sortable = [one.name for one in FIELDS.values() if one.kind in SORTABLE]
    names = draw(st.lists(st.sampled_from(sortable), max_size=4, unique=True))
    return ", ".join(
        name
        + draw(st.sampled_from(["", "-", "+", " desc"]))
        + draw(st.sampled_from(["", " nulls first", " nulls last"]))
        for name in names
    )
