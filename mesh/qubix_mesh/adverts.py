# SPDX-License-Identifier: Apache-2.0
"""Whom to believe of those who gossip offers (trust P3): the one judgement of gateways, relays and watchers.

Time is the coordinator's clock: told by a handshake where there was one, else heard from the adverts themselves. This
machine's own clock decides nothing.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median_low
from typing import Final

from qubix_mesh.port import Validator
from qubix_mesh.rules import Rates
from qubix_protocol.adverts import Licence, decode_advert, read_certificate
from qubix_protocol.envelope import ANYONE, Claim, read_claim
from qubix_protocol.errors import (
    BadSignature,
    Expired,
    Malformed,
    ProtocolError,
    Replayed,
    TooFast,
    WrongAudience,
    WrongRegion,
)
from qubix_protocol.keys import public_key_of
from qubix_protocol.messages import Offer
from qubix_protocol.units import (
    DEVICES_MAX,
    ENVELOPE_LIFE_MS_MAX,
    GOSSIP_BYTES_MAX,
    OFFER_LIFE_MS,
    Network,
    offers_topic,
)

AUTHORS_MAX: Final = 10_000
PER_S: Final = 4.0
BURST: Final = 256
"""A node with all the devices it may have says each of them anew when a session begins, and again soon after."""
_CERTIFICATES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Heard:
    """An offer that was believed. Times in milliseconds are by the coordinator's clock, `heard_s` by this side's."""

    peer_id: str
    offer: Offer
    heard_s: float
    sequence: tuple[int, int]
    expires_ms: int
    certified_until_ms: int
    stale: bool = False
    """It has expired, and nothing newer was heard yet."""
    certified: bool = True
    """By this market's coordinator: what is not is never heard, and no longer shown once the certificate expires."""


class HeardClock:
    """The coordinator's clock, as certified nodes tell it: an offer expires `OFFER_LIFE_MS` after it was said.

    The median of what each author's least delayed advert says, so that neither one liar nor recordings of a few move
    it. `None` until the first.
    """

    def __init__(self, steady_s: Callable[[], float]) -> None:
        self._steady_s = steady_s
        self._offsets: dict[str, int] = {}
        self._offset: int | None = None

    def hear(self, author: str, expires_ms: int) -> None:
        """Only of what was proved to be the author's own and certified."""
        offset = expires_ms - OFFER_LIFE_MS - self._now_ms()
        known = self._offsets.pop(author, None)
        self._offsets[author] = offset if known is None else max(known, offset)
        if len(self._offsets) > AUTHORS_MAX:
            del self._offsets[next(iter(self._offsets))]
        if known != self._offsets[author]:
            self._offset = None

    def now_ms(self) -> int | None:
        if not self._offsets:
            return None
        if self._offset is None:
            self._offset = median_low(self._offsets.values())
        return self._now_ms() + self._offset

    def _now_ms(self) -> int:
        return round(self._steady_s() * 1000)


@dataclass(slots=True)
class _Last:
    sequence: tuple[int, int]
    expires_ms: int


class Adverts:
    """`clock_ms` is the coordinator's clock by a handshake, None while there was none. `counts` says what was refused,
    by the error's code."""

    def __init__(
        self,
        *,
        network: Network,
        coordinator: bytes,
        steady_s: Callable[[], float],
        clock_ms: Callable[[], int | None] = lambda: None,
        per_s: float = PER_S,
        burst: float = BURST,
    ) -> None:
        self._network: Network = network
        self._coordinator, self._steady_s, self._told_ms = coordinator, steady_s, clock_ms
        self._heard_clock = HeardClock(steady_s)
        self._rates = Rates(per_s, burst, names_max=AUTHORS_MAX)
        self._licences: dict[bytes, Licence] = {}
        self._last: dict[str, dict[str, _Last]] = {}
        self.counts: Counter[str] = Counter()

    def now_ms(self) -> int | None:
        """The coordinator's clock, as well as it is known here."""
        told = self._told_ms()
        return self._heard_clock.now_ms() if told is None else told

    def validator(self, topic: str, heard: Callable[[Heard], None] = lambda _: None) -> Validator:
        """For `Mesh.subscribe`; `heard` gets what is believed."""

        def accepts(author: str, data: bytes) -> bool:
            try:
                believed = self.judge(topic, author, data)
            except ProtocolError as error:
                self.counts[f"gossip_{error.code}"] += 1
                return False
            heard(believed)
            return True

        return accepts

    def judge(self, topic: str, author: str, data: bytes) -> Heard:
        """Cheap tests first; what costs a signature's check is bounded for each author. Raises a `ProtocolError`."""
        advert = decode_advert(data)
        claim = read_claim(advert.offer, network=self._network, limit_bytes=GOSSIP_BYTES_MAX)
        offer = self._claimed(claim, topic, author)
        self._require_newer(author, offer.device.device_id, claim.sequence)
        self._require_current(claim.header.expires_ms, self._told_ms())
        if not self._rates.allow(author, self._steady_s()):
            raise TooFast("this author says too much")
        licence = self._licence(advert.certificate)
        licence.check(author=author, region=offer.region, incarnation=claim.header.incarnation, now_ms=self.now_ms())
        claim.proved()
        self._heard_clock.hear(author, claim.header.expires_ms)
        self._require_not_past(claim.header.expires_ms, self.now_ms())
        self._note(author, offer.device.device_id, claim)
        return Heard(author, offer, self._steady_s(), claim.sequence, claim.header.expires_ms, licence.expires_ms)

    def _claimed(self, claim: Claim, topic: str, author: str) -> Offer:
        if claim.header.sender != public_key_of(author):
            raise BadSignature("said by another than who passes it off as theirs")
        if claim.header.audience != ANYONE:
            raise WrongAudience("gossip is for everybody")
        if claim.header.type != "offer":
            raise Malformed(f"{claim.header.type!r} is not gossiped")
        offer = claim.claims(Offer)
        if topic != offers_topic(self._network, offer.region):
            raise WrongRegion(f"an offer of {offer.region!r} does not belong on {topic}")
        return offer

    def _require_current(self, expires_ms: int, told_ms: int | None) -> None:
        """By a handshake's clock. One that is only heard may lag, so that nothing is too far ahead of it."""
        self._require_not_past(expires_ms, told_ms)
        if told_ms is not None and expires_ms > told_ms + ENVELOPE_LIFE_MS_MAX:
            raise Expired(f"expiry {expires_ms} is too far ahead of {told_ms}")

    def _require_not_past(self, expires_ms: int, now_ms: int | None) -> None:
        if now_ms is not None and expires_ms < now_ms:
            raise Expired(f"expiry {expires_ms} is before {now_ms}")

    def _require_newer(self, author: str, device_id: str, sequence: tuple[int, int]) -> None:
        last = self._last.get(author, {}).get(device_id)
        if last is not None and sequence <= last.sequence:
            raise Replayed(f"{sequence} is not newer than {last.sequence}")

    def _licence(self, certificate: bytes) -> Licence:
        known = self._licences.get(certificate)
        if known is not None:
            return known
        licence = read_certificate(certificate, network=self._network, coordinator=self._coordinator)
        if len(self._licences) >= _CERTIFICATES_MAX:
            del self._licences[next(iter(self._licences))]
        self._licences[certificate] = licence
        return licence

    def _note(self, author: str, device_id: str, claim: Claim) -> None:
        """What has expired need not be remembered: said again it is refused for that."""
        if author not in self._last and len(self._last) >= AUTHORS_MAX:
            self._forget_expired()
            if len(self._last) >= AUTHORS_MAX:
                raise TooFast("more nodes than are kept count of")
        devices = self._last.setdefault(author, {})
        if device_id not in devices and len(devices) >= DEVICES_MAX:
            self._drop_expired(devices)
            if len(devices) >= DEVICES_MAX:
                raise TooFast(f"more than {DEVICES_MAX} devices of one node at once")
        devices[device_id] = _Last(claim.sequence, claim.header.expires_ms)

    def _forget_expired(self) -> None:
        for devices in self._last.values():
            self._drop_expired(devices)
        self._last = {author: devices for author, devices in self._last.items() if devices}

    def _drop_expired(self, devices: dict[str, _Last]) -> None:
        now_ms = self.now_ms() or 0
        for device_id in [one for one, last in devices.items() if last.expires_ms < now_ms]:
            del devices[device_id]


def expired(heard: Heard, now_ms: int | None) -> bool:
    """By the coordinator's clock, as far as it is known."""
    return now_ms is not None and now_ms > heard.expires_ms


def live(heard: Heard, now_ms: int | None, now_s: float, *, missed_ms: int) -> bool:
    """Whether an offer is still shown: certified, and expired for no longer than `missed_ms`, by the clock that is
    heard, and by our own since it came, whatever it says of itself."""
    if now_s - heard.heard_s > (OFFER_LIFE_MS + missed_ms) / 1000:
        return False
    return now_ms is None or (now_ms <= heard.expires_ms + missed_ms and now_ms <= heard.certified_until_ms)
