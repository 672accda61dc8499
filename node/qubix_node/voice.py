# SPDX-License-Identifier: Apache-2.0
"""How offers leave: sealed, beside the coordinator's word that this node may gossip them (trust P3).

A session has one. What it was given outlives it, on disk: a node that starts again while the coordinator is away goes
on under it for as long as others believe it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from qubix_node.clock import steady_ms, wall_ms
from qubix_node.files import write_atomically
from qubix_protocol.adverts import Licence, encode_advert, read_certificate
from qubix_protocol.envelope import ANYONE, Sealer
from qubix_protocol.errors import NotCertified
from qubix_protocol.keys import SigningKey
from qubix_protocol.messages import Offer, Sample
from qubix_protocol.units import CERTIFICATE_BYTES_MAX, OFFER_LIFE_MS, Network

_LIVES_MAX: Final = 2**20
_COUNTERS: Final = 2**32
"""Offers of one life of the process, at most."""


class Pins(msgspec.Struct, frozen=True):
    """Who speaks to whom: everything else is refused."""

    key: SigningKey
    network: Network
    coordinator: bytes


def told(sample: Sample, shift_ms: int) -> Sample:
    """With its time by the coordinator's clock, which is `shift_ms` ahead: ours may be off by any amount."""
    return msgspec.structs.replace(sample, at_ms=max(0, sample.at_ms + shift_ms))


class Voice:
    """`clock_ms` is the coordinator's. Raises `NotCertified`."""

    def __init__(
        self,
        pins: Pins,
        certificate: bytes,
        *,
        incarnation: int,
        clock_ms: Callable[[], int],
        wall_ms: Callable[[], int] = wall_ms,
        after: int = 0,
    ) -> None:
        self._pins, self._incarnation, self._wall_ms = pins, incarnation, wall_ms
        self.clock_ms: Final = clock_ms
        self.certificate, self.licence = certificate, self._checked(certificate)
        self._sealer = Sealer(
            pins.key,
            network=pins.network,
            audience=ANYONE,
            incarnation=incarnation,
            clock_ms=clock_ms,
            life_ms=OFFER_LIFE_MS,
            after=after,
        )

    def certify(self, certificate: bytes) -> None:
        """The next certificate of the same session. Raises `NotCertified`."""
        self.licence, self.certificate = self._checked(certificate), certificate

    def _checked(self, certificate: bytes) -> Licence:
        licence = read_certificate(certificate, network=self._pins.network, coordinator=self._pins.coordinator)
        licence.check(
            author=self._pins.key.peer_id,
            region=licence.region,
            incarnation=self._incarnation,
            now_ms=self.clock_ms(),
        )
        return licence

    @property
    def certified(self) -> bool:
        """Whether others still believe the certificate."""
        return self.clock_ms() <= self.licence.expires_ms

    @property
    def shift_ms(self) -> int:
        """What the coordinator's clock is ahead of this machine's."""
        return self.clock_ms() - self._wall_ms()

    def advert(self, offer: Offer) -> bytes:
        """For gossip on the topic of the licence's region."""
        if offer.metrics is not None:
            offer = msgspec.structs.replace(offer, metrics=told(offer.metrics, self.shift_ms))
        return encode_advert(self.certificate, self._sealer.seal(offer))


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    certificate: Annotated[bytes, Meta(max_length=CERTIFICATE_BYTES_MAX)]
    shift_ms: int
    lives: Annotated[int, Meta(ge=0, lt=_LIVES_MAX)] = 0
    """How often a process that started without a session went on under it: each has counters of its own."""


class KeptVoice:
    """The last certificate in a file. Blocks on the disk."""

    def __init__(self, path: Path, pins: Pins) -> None:
        self._path, self._pins = path, pins

    def keep(self, voice: Voice) -> None:
        self._write(_Kept(voice.certificate, voice.shift_ms))

    def again(self) -> Voice | None:
        """None where nothing is kept that others would believe: another coordinator's, an expired or damaged one."""
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
            lives = kept.lives + 1
            voice = self._voice(kept, lives)
            self._write(msgspec.structs.replace(kept, lives=lives))
        except (OSError, ValueError, msgspec.MsgspecError, NotCertified):
            return None
        return voice

    def _voice(self, kept: _Kept, lives: int) -> Voice:
        shift_ms = wall_ms() + kept.shift_ms - steady_ms()
        licence = read_certificate(kept.certificate, network=self._pins.network, coordinator=self._pins.coordinator)
        return Voice(
            self._pins,
            kept.certificate,
            incarnation=licence.incarnation,
            clock_ms=lambda: steady_ms() + shift_ms,
            after=lives * _COUNTERS,
        )

    def _write(self, kept: _Kept) -> None:
        write_atomically(self._path, msgspec.json.encode(kept))
