# SPDX-License-Identifier: Apache-2.0
"""A coordinator's key, nodes that it certified, and adverts as they say them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import trio

from qubix_mesh.adverts import Adverts
from qubix_protocol.adverts import encode_advert
from qubix_protocol.envelope import ANYONE, seal
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Certificate, Device, Message, Offer
from qubix_protocol.states import Availability, DeviceKind
from qubix_protocol.units import OFFER_LIFE_MS, Network, offers_topic

COORDINATOR = SigningKey(b"c" * 32)
REGION = "local"
TOPIC = offers_topic("devnet", REGION)
START_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def coordinator_ms() -> int:
    """The coordinator's clock in a test: trio's, from a date."""
    return START_MS + round(trio.current_time() * 1000)


def offer(device_id: str = "gpu-0", **changes: Any) -> Offer:
    device = Device(device_id=device_id, kind=DeviceKind.CUDA, model="H100", memory_bytes=80 << 30, backends=("cuda",))
    given: dict[str, Any] = {
        "device": device,
        "rate_qu_per_h": 100,
        "region": REGION,
        "availability": Availability.AVAILABLE,
    }
    return Offer(**{**given, **changes})


def certificate(
    peer_id: str,
    *,
    expires_ms: int,
    region: str = REGION,
    incarnation: int = 1,
    key: SigningKey = COORDINATOR,
    network: Network = "devnet",
    audience: bytes = ANYONE,
) -> bytes:
    return seal(
        Certificate(peer_id=peer_id, region=region, expires_ms=expires_ms),
        key,
        network=network,
        audience=audience,
        incarnation=incarnation,
        counter=0,
        expires_ms=0,
    )


@dataclasses.dataclass
class Speaker:
    """A certified node's mouth. `clock_ms` is the coordinator's clock as its handshake told it."""

    key: SigningKey
    clock_ms: Callable[[], int] = coordinator_ms
    incarnation: int = 1
    counter: int = 0
    certificate: bytes = b""

    def __post_init__(self) -> None:
        if not self.certificate:
            self.certify(self.clock_ms() + DAY_MS)

    @property
    def peer_id(self) -> str:
        return self.key.peer_id

    def certify(self, expires_ms: int, **changes: Any) -> None:
        self.certificate = certificate(
            self.peer_id, expires_ms=expires_ms, **{"incarnation": self.incarnation, **changes}
        )

    def restart(self) -> None:
        """A new session."""
        self.incarnation, self.counter = self.incarnation + 1, 0
        self.certify(self.clock_ms() + DAY_MS)

    def envelope(self, message: Message, **wrong: Any) -> bytes:
        self.counter += 1
        how: dict[str, Any] = {
            "network": "devnet",
            "audience": ANYONE,
            "incarnation": self.incarnation,
            "counter": self.counter,
            "expires_ms": self.clock_ms() + OFFER_LIFE_MS,
        }
        key = wrong.pop("key", self.key)
        return seal(message, key, **{**how, **wrong})

    def advert(self, said: Message | None = None, *, certificate: bytes | None = None, **wrong: Any) -> bytes:
        sealed = self.envelope(said if said is not None else offer(), **wrong)
        return encode_advert(self.certificate if certificate is None else certificate, sealed)


def speaker(number: int, **given: Any) -> Speaker:
    return Speaker(SigningKey(number.to_bytes(32, "big")), **given)


def judge(**given: Any) -> Adverts:
    """One that knows the coordinator's clock."""
    how: dict[str, Any] = {"clock_ms": coordinator_ms, "steady_s": trio.current_time}
    return Adverts(network="devnet", coordinator=COORDINATOR.public, **{**how, **given})
