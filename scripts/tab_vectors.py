# SPDX-License-Identifier: Apache-2.0
"""Writes web/tests/net/vectors.json: what the browser tab's TypeScript must make and read byte for byte, as made by the
Python code. A test keeps it fresh."""

import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from qubix_coordinator.http.session import certificate
from qubix_coordinator.market.service import listing_id
from qubix_kernels import get
from qubix_protocol import browser, codec, digests, envelope
from qubix_protocol.adverts import encode_advert
from qubix_protocol.arrays import Array, ArrayMeta, pack_arrays, to_npy
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import (
    Accept,
    Acknowledged,
    ArtifactRequest,
    Assign,
    Beat,
    Cancel,
    Challenge,
    Decline,
    Device,
    Failure,
    Heartbeat,
    Hello,
    Host,
    InputRef,
    KernelRate,
    Leaving,
    Link,
    LiveAttempt,
    Message,
    Offer,
    Order,
    OrderKeyRequest,
    OrderKeyRevocation,
    Params,
    Progress,
    Range,
    Refused,
    RentOrder,
    Report,
    Settlement,
    Settlements,
    SettlementsAsk,
    WalletApproval,
    Welcome,
)
from qubix_protocol.selftest import Check, CheckStatus, SelfTest
from qubix_protocol.states import Availability, DeviceKind, OrderKeyKind, Outcome, Reason

FILE: Final = Path(__file__).resolve().parent.parent / "web" / "tests" / "net" / "vectors.json"
TAB, COORDINATOR, OTHER = (SigningKey(bytes([n]) * 32) for n in (7, 8, 9))
JOB, ATTEMPT = (f"0000000{n}-0000-4000-8000-000000000001" for n in (1, 2))
KERNELS: Final = ("mandelbrot", "matmul", "montecarlo_option")
"""Those that a tab runs."""
NOW_MS: Final = 1_700_000_000_000
NONCE: Final = bytes(range(32))
PARAMS: Final[dict[str, Params]] = {
    "none": {},
    "floats that are whole": {
        "zero": 0.0,
        "two": 2.0,
        "minus_three": -3.0,
        "large": 1e300,
        "million": 1e6,
        "less": -0.0,
    },
    "floats": {"tenth": 0.1, "small": 5e-324, "minus": -1.5, "third": 1 / 3, "most": 1.7976931348623157e308},
    "whole numbers": {
        **{f"n{bits}": 2**bits - 1 for bits in (7, 8, 15, 16, 31, 32, 53, 63, 64)},
        **{f"p{bits}": 2**bits for bits in (7, 8, 15, 16, 31, 32, 53)},
        **{f"m{bits}": -(2**bits) for bits in (5, 7, 8, 15, 16, 31, 32, 53, 63)},
        **{f"l{bits}": -(2**bits) - 1 for bits in (5, 7, 15, 31)},
    },
    "words": {"yes": True, "no": False, "text": "größe \u2028 𝄞", "empty": "", "long": "x" * 300, "brief": "y" * 31},
    "out of order": {"b": 1, "a": 1.0, "c10": 1, "c9": 2.0, "a_b": 3, "ab": 4},
}
INPUTS: Final = (
    InputRef(name="b", digest=b"b" * 32, size_bytes=70_000, meta=ArrayMeta("float32", (300, 4))),
    InputRef(name="a", digest=b"a" * 32, size_bytes=5 * 2**32, meta=ArrayMeta("float64", (2**18,))),
)


def assign(params: Params, inputs: tuple[InputRef, ...] = INPUTS) -> Assign:
    return Assign(
        job_id=JOB,
        attempt_id=ATTEMPT,
        fence=3,
        device_id="webgpu-1",
        backend="webgpu",
        kernel="matmul",
        kernel_version=1,
        params=params,
        inputs=inputs,
        units_total=1000,
        ranges=(Range(0, 100), Range(200, 70_000)),
        chunk_units=17,
        time_limit_ms=60_000,
        rate_qu_per_h=3_600,
        offer_digest=b"o" * 32,
    )


def chain() -> list[Link]:
    made: list[Link] = []
    for index, (start, stop) in enumerate(((0, 17), (17, 300), (300, 70_000))):
        head = digests.of_link(made[-1]) if made else digests.ZERO
        made.append(
            Link(
                index=index,
                units=Range(start, stop),
                output_digest=bytes([index]) * 32,
                output_bytes=2 ** (8 + 16 * index),
                claimed_ms=index * 1_000,
                predecessor=head,
            )
        )
    return made


def messages() -> dict[str, Message]:
    """One of each that a tab says, and `tests/net/vectors.test.ts` says the same."""
    link = chain()[1]
    host = Host(system="browser", cpu_model="", cpu_cores=8, memory_bytes=0, agent="a browser")
    report: dict[str, Any] = {
        "job_id": JOB,
        "attempt_id": ATTEMPT,
        "fence": 3,
        "kernel": "matmul",
        "params_digest": digests.of_params({}),
        "inputs_digest": digests.of_inputs(INPUTS),
        "links": 3,
        "units_done": 70_000,
        "head": digests.of_link(chain()[2]),
        "claimed_ms": 3_000,
        "started_ms": NOW_MS,
        "finished_ms": NOW_MS + 5_000,
        "backend": "webgpu",
        "device_id": "webgpu-1",
    }
    device = Device(
        device_id="webgpu-1",
        kind=DeviceKind.WEBGPU,
        model="A GPU",
        memory_bytes=8 * 1024**3,
        driver="maker 12",
        backends=("webgpu",),
    )
    check = Check(
        id="webgpu",
        title="WebGPU",
        status=CheckStatus.WARN,
        actual="slow",
        required="fast",
        unit="GFLOP/s",
        purpose="To compute.",
        remedy="Wait.",
    )
    return {
        "hello": Hello(
            nonce=NONCE,
            exchange=browser.NO_EXCHANGE,
            clock_ms=NOW_MS,
            host=host,
            attempts=(LiveAttempt(attempt_id=ATTEMPT, fence=3, running=True),),
            region="eu",
        ),
        "heartbeat": Heartbeat(
            attempts=(
                Beat(attempt_id=ATTEMPT, fence=3, fraction=0.0, elapsed_ms=0),
                Beat(attempt_id=ATTEMPT, fence=3, fraction=0.25, elapsed_ms=123_456),
                Beat(attempt_id=ATTEMPT, fence=3, fraction=1.0, elapsed_ms=2**40),
            )
        ),
        "idle": Heartbeat(),
        "accept": Accept(attempt_id=ATTEMPT, fence=3),
        "decline": Decline(attempt_id=ATTEMPT, fence=3, reason="busy"),
        "progress": Progress(attempt_id=ATTEMPT, fence=3, fraction=1.0, elapsed_ms=900),
        "link": Progress(attempt_id=ATTEMPT, fence=3, fraction=0.5, elapsed_ms=900, link=link),
        "completed": Report(outcome=Outcome.COMPLETED, **report),
        "failed": Report(outcome=Outcome.FAILED, failure=Failure(code="device_lost", detail="gone"), **report),
        "offer": Offer(
            device=device,
            rate_qu_per_h=3_600,
            region="eu",
            availability=Availability.BUSY,
            rates=(
                KernelRate(kernel="matmul", backend="webgpu", flops_per_s=2e9, bytes_per_s=1.5e9, overhead_s=0.0),
                KernelRate(kernel="mandelbrot", backend="webgpu", flops_per_s=0.0, bytes_per_s=1.0, overhead_s=0.25),
            ),
            cpu_cores=8,
            country="DE",
        ),
        "artifact_request": ArtifactRequest(
            method="PUT", digest=b"d" * 32, size_bytes=70_000, attempt_id=ATTEMPT, fence=3
        ),
        "selftest": SelfTest(
            test_id=JOB, device_id="webgpu-1", at_ms=NOW_MS, took_ms=1_234, quick=False, full=True, checks=(check,)
        ),
        "leaving": Leaving(),
        "settlements_ask": SettlementsAsk(after_ms=NOW_MS, after=ATTEMPT),
        "refused": Refused(code="malformed", detail="no"),
    }


def sealed(message: Message, key: SigningKey, audience: bytes, **changes: Any) -> bytes:
    how: dict[str, Any] = {"network": "devnet", "incarnation": 5, "counter": 1, "expires_ms": NOW_MS + 60_000}
    return envelope.seal(message, key, audience=audience, **(how | changes))


def settlement(provider: str = TAB.peer_id) -> Settlement:
    return Settlement(
        network="devnet",
        job_id=JOB,
        attempt_id=ATTEMPT,
        provider=provider,
        report_digest=b"r" * 32,
        head=b"h" * 32,
        units_accepted=1000,
        units_total=1000,
        verdict="ok",
        check_ms=1,
        run_ms=2_000,
        billed_ms=2_000,
        rate_qu_per_h=3_600,
        paid_qu=2,
        fee_qu=0,
        decided_ms=NOW_MS,
    )


def told_again() -> dict[str, bytes]:
    """As it is signed for everybody and for ever; and what is none, or is somebody else's."""
    how: dict[str, Any] = {"incarnation": 0, "counter": 0, "expires_ms": NOW_MS}
    return {
        "mine": sealed(settlement(), COORDINATOR, envelope.ANYONE, **how),
        "another's": sealed(settlement(OTHER.peer_id), COORDINATOR, envelope.ANYONE, **how),
        "forged": sealed(settlement(), OTHER, envelope.ANYONE, **how),
        "no settlement": sealed(Leaving(), COORDINATOR, envelope.ANYONE, **how),
    }


def commands() -> dict[str, Message]:
    again = Settlements(told=(told_again()["mine"],), next_ms=NOW_MS, next=ATTEMPT, more=True)
    return {
        "assign": assign(PARAMS["floats that are whole"]),
        "cancel": Cancel(attempt_id=ATTEMPT, fence=3, reason=Reason.SUPERSEDED),
        "acknowledged": Acknowledged(attempt_id=ATTEMPT, fence=3, link=2),
        "report acknowledged": Acknowledged(attempt_id=ATTEMPT, fence=3),
        "settlement": settlement(),
        "settlements": again,
        "refused": Refused(code="forbidden", detail="no", remedy="stop"),
    }


def session() -> dict[str, Any]:
    """A handshake, what is said after it, and what is not to be believed."""
    challenge = Challenge(nonce=NONCE, clock_ms=NOW_MS, exchange=browser.NO_EXCHANGE)
    licence = certificate(
        COORDINATOR,
        network="devnet",
        peer_id=TAB.peer_id,
        region="eu",
        incarnation=5,
        expires_ms=NOW_MS + 86_400_000,
        now_ms=NOW_MS,
    )
    welcome = Welcome(
        incarnation=5,
        account_id=JOB,
        clock_ms=NOW_MS,
        heartbeat_s=2.0,
        offer_s=30.0,
        telemetry_s=5.0,
        artifact_url="http://here/artifacts",
        certificate=licence,
    )
    cancel, tab = commands()["cancel"], TAB.public
    wrong: dict[str, tuple[str, bytes]] = {
        "forged": ("bad_signature", sealed(cancel, OTHER, tab, counter=9)),
        "another network": ("wrong_network", sealed(cancel, COORDINATOR, tab, counter=9, network="main")),
        "another audience": ("wrong_audience", sealed(cancel, COORDINATOR, OTHER.public, counter=9)),
        "for anyone": ("wrong_audience", sealed(cancel, COORDINATOR, envelope.ANYONE, counter=9)),
        "expired": ("expired", sealed(cancel, COORDINATOR, tab, counter=9, expires_ms=NOW_MS - 1)),
        "too far ahead": ("expired", sealed(cancel, COORDINATOR, tab, counter=9, expires_ms=NOW_MS + 10**9)),
        "another session": ("replayed", sealed(cancel, COORDINATOR, tab, counter=9, incarnation=4)),
        "an old counter": ("replayed", sealed(cancel, COORDINATOR, tab, counter=1)),
        "cut off": ("malformed", sealed(cancel, COORDINATOR, tab, counter=9)[:-1]),
        "rubbish": ("malformed", b"\xc1"),
    }
    hello = messages()["hello"]
    offered = sealed(messages()["offer"], TAB, envelope.ANYONE)
    return {
        "challenge": sealed(challenge, COORDINATOR, tab, incarnation=0).hex(),
        "hello": sealed(hello, TAB, COORDINATOR.public, incarnation=0).hex(),
        "welcome": sealed(welcome, COORDINATOR, tab).hex(),
        "certificate": licence.hex(),
        "commands": [
            {"type": name, "envelope": sealed(one, COORDINATOR, tab, counter=n).hex()}
            for n, (name, one) in enumerate(commands().items(), 2)
        ],
        "wrong": [{"what": what, "code": code, "envelope": raw.hex()} for what, (code, raw) in wrong.items()],
        "say": browser.encode(browser.BrowserSay(statement=sealed(Heartbeat(), TAB, COORDINATOR.public))).hex(),
        "last": browser.encode(
            browser.BrowserSay(statement=sealed(Leaving(), TAB, COORDINATOR.public, counter=2**53 - 1))
        ).hex(),
        "told_again": {name: raw.hex() for name, raw in told_again().items()},
        "open": browser.encode(browser.BrowserOpen(peer_id=TAB.peer_id, network="devnet")).hex(),
        "offer": browser.encode(browser.BrowserOffer(advert=encode_advert(licence, offered))).hex(),
    }


ORDERED: Final[dict[str, dict[str, Any]]] = {
    "mandelbrot": {"width": 360, "height": 240, "pixel": 1, "top": -0.0, "left": -2.2, "max_iterations": 400},
    "montecarlo_option": {},
    "matmul": {},
    "knn": {"k": 3},
}
"""Parameters as a page sends them, in JSON: whole numbers for floats, and without what has a default."""


def orders() -> list[dict[str, Any]]:
    """What the page's own key signs: each statement, and the envelope around it."""
    refs = [
        InputRef(name=name, digest=name.encode() * 32, size_bytes=70_000, meta=ArrayMeta("float32", (300, 4)))
        for name in ("b", "a")
    ]
    made: list[tuple[str, dict[str, Any], Message]] = []
    for name, said in ORDERED.items():
        spec = get(name).spec
        sent = json.loads(json.dumps({key: 0 if value == 0 else value for key, value in said.items()}))
        required = {one.name: 2 for one in spec.params if one.default is None and one.name not in sent}
        params = get(name).normalise(sent | required)
        order = Order(
            idempotency_key=f"key of {name}",
            kernel=name,
            params_digest=digests.of_params(params),
            inputs_digest=digests.of_inputs(refs),
            cap_qu=5_000_000_000,
            rate_qu_per_h_max=None,
        )
        known = {"kernel": msgspec.to_builtins(spec), "said": said | required}
        made.append(("job", known, order))
    rent: dict[str, Any] = {"listing_id": JOB, "seconds": 600, "rate_qu_per_h_max": 3_600, "count": 2}
    made.append(("rent", rent, RentOrder(idempotency_key="key", cap_qu=None, **rent)))
    request = OrderKeyRequest(account_id=JOB, kind=OrderKeyKind.BROWSER, name="Firefox on Linux", clock_ms=NOW_MS)
    made.append(("request", {}, request))
    made.append(("revocation", {}, OrderKeyRevocation(account_id=JOB, public_key=OTHER.public)))
    made.append(("wallet", {}, WalletApproval(account_id=JOB, identity="B" * 60)))
    return [
        {
            "what": what,
            "of": known,
            "body": codec.encode(message).hex(),
            "envelope": sealed(message, TAB, COORDINATOR.public, incarnation=0).hex(),
        }
        for what, known, message in made
    ]


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    made: dict[str, dict[str, Array]] = {
        "one": {"x": np.zeros(1, dtype=np.int8)},
        "small": {"c": rng.standard_normal((2, 3)).astype(np.float32)},
        "two": {"indices": np.arange(12, dtype=np.int64).reshape(4, 3), "distances": rng.standard_normal((4, 3))},
        # Described by its form: its bytes would be most of the file.
        "large": {"c": np.arange(130 * 130, dtype=np.float32).reshape(130, 130)},
    }
    return {
        name: {
            "packed": digests.of_bytes(pack_arrays(of)).hex(),
            "arrays": [
                {"name": key, "npy": "" if name == "large" else to_npy(array).hex(), "shape": list(array.shape)}
                for key, array in of.items()
            ],
        }
        for name, of in made.items()
    }


def vectors() -> dict[str, Any]:
    return {
        "now_ms": NOW_MS,
        "keys": {
            name: {"seed": key.seed.hex(), "public": key.public.hex(), "peer_id": key.peer_id}
            for name, key in {"tab": TAB, "coordinator": COORDINATOR, "other": OTHER}.items()
        },
        "listing_id": str(listing_id(TAB.peer_id, "webgpu-1")),
        "assigns": [
            {
                "params": name,
                "body": codec.encode(assign(params)).hex(),
                "params_digest": digests.of_params(params).hex(),
                "inputs_digest": digests.of_inputs(INPUTS).hex(),
            }
            for name, params in PARAMS.items()
        ],
        "links": [{"body": codec.encode(one).hex(), "digest": digests.of_link(one).hex()} for one in chain()],
        "messages": {name: codec.encode(one).hex() for name, one in messages().items()},
        "session": session(),
        "orders": orders(),
        "arrays": arrays(),
        "kernels": {name: get(name).spec.version for name in KERNELS},
    }


def text() -> str:
    return json.dumps(vectors(), indent=1) + "\n"


def main() -> int:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text())
    print(f"wrote {FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
