# SPDX-License-Identifier: Apache-2.0
"""One node's control session as the coordinator sees it: no sockets, no clock, no randomness, no database.

    Challenge ──▶ Hello ──▶ Welcome, then statements both ways under the session's incarnation.

From the Hello on everything is encrypted for the two sides (`qubix_protocol.channel`): gateways carry what they cannot
read. A session without `exchange` is a browser tab's, which no gateway carries: there TLS alone hides, and nothing of a
gateway's session is believed (docs/adr/0032).

`receive_*` raise a `ProtocolError` for whatever is not to be believed: forged, replayed, stale, expired, for another
network or audience, oversized or malformed. A refused statement changes nothing.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, get_args

from qubix_protocol import envelope
from qubix_protocol.adverts import decode_advert
from qubix_protocol.browser import NO_EXCHANGE
from qubix_protocol.channel import Channel, Exchange, Side, exchange_in, label_of
from qubix_protocol.envelope import Opened, ReplayGuard, Sealer
from qubix_protocol.errors import (
    BadSignature,
    Malformed,
    NotCertified,
    NotGenuine,
    Replayed,
    TooFast,
    WrongAudience,
    WrongRegion,
)
from qubix_protocol.keys import SigningKey, public_key_of
from qubix_protocol.messages import Certificate, Challenge, Hello, Offer, Renewal, Welcome, type_name
from qubix_protocol.statements import FromCoordinator, Statement
from qubix_protocol.units import DEVICES_MAX, GOSSIP_BYTES_MAX, Network

_KINDS: Final[dict[str, type[Statement]]] = {type_name(kind): kind for kind in get_args(Statement)}


class Heard(NamedTuple):
    """A statement, and its signed envelope, which is evidence."""

    message: Statement
    raw: bytes


class NotYet(NotGenuine):
    """A statement before the handshake is done, or a second handshake."""

    code = "out_of_order"


class Session:
    """`nonce` and `exchange` (32 random bytes each) are drawn for this session alone; `peer_id` is what libp2p
    authenticated at the gateway, or what a tab claims. `exchange` None: nothing stands between."""

    def __init__(
        self,
        key: SigningKey,
        *,
        network: Network,
        peer_id: str,
        nonce: bytes,
        exchange: bytes | None,
        clock_ms: Callable[[], int],
    ) -> None:
        self.peer_id: Final = peer_id
        self.public_key: Final = public_key_of(peer_id)
        self._key, self._network, self._clock_ms = key, network, clock_ms
        self._nonce: bytes | None = nonce
        self._exchange = Exchange(exchange) if exchange is not None else None
        self._channel: Channel | None = None
        self._sealer = self._sealer_of(0)
        self._guard: ReplayGuard | None = None
        self._last_offers: dict[str, int] = {}
        """By device: offers of different devices may overtake each other."""
        self._certificates: tuple[bytes, ...] = ()
        """Those that this session gave and that still count, newest last."""
        self._region = ""
        self._certificate_ms = self._renew_ms = 0

    @property
    def live(self) -> bool:
        """Whether the handshake is done."""
        return self._guard is not None

    @property
    def incarnation(self) -> int:
        """0 until the handshake is done."""
        return self._guard.incarnation if self._guard else 0

    def challenge(self) -> bytes:
        assert self._nonce is not None
        now_ms = self._clock_ms()
        exchange = self._exchange.public if self._exchange is not None else NO_EXCHANGE
        return self._sealer.seal(Challenge(nonce=self._nonce, clock_ms=now_ms, exchange=exchange))

    def receive_hello(self, raw: bytes) -> Hello:
        """The answer to the challenge; its nonce is good for one Hello."""
        if self._nonce is None or label_of(raw) != "hello":
            raise NotYet(f"a frame of {label_of(raw)[:20]!r} is not what a handshake waits for")
        theirs, channel = NO_EXCHANGE, None
        if self._exchange is not None:
            theirs = exchange_in(raw)
            channel = self._exchange.channel(theirs, nonce=self._nonce, side=Side.COORDINATOR)
        opened = self._open(channel.decrypt(raw) if channel is not None else raw)
        if opened.header.type != "hello":
            raise NotYet(f"{opened.header.type!r} is not what a handshake waits for")
        hello = opened.body(Hello)
        if hello.exchange != theirs:
            raise BadSignature("the key that hides the Hello is not the one that it proves")
        if opened.header.incarnation != 0:
            raise Replayed("a Hello carries incarnation 0")
        if hello.nonce != self._nonce:
            raise Replayed("the nonce is not the one of this challenge")
        self._nonce, self._channel = None, channel
        return hello

    def welcome(
        self,
        incarnation: int,
        *,
        account_id: str,
        heartbeat_s: float,
        offer_s: float,
        telemetry_s: float,
        artifact_url: str,
        region: str,
        certificate_ms: int,
    ) -> bytes:
        """Ends the handshake: from here on both sides speak under `incarnation`, and the node may gossip in `region`
        for `certificate_ms`."""
        assert self._nonce is None, "a Hello was received"
        assert not self.live, "once"
        self._guard = ReplayGuard(incarnation)
        self._sealer = self._sealer_of(incarnation)
        self._region, self._certificate_ms = region, certificate_ms
        return self.seal(
            Welcome(
                incarnation=incarnation,
                account_id=account_id,
                clock_ms=self._clock_ms(),
                heartbeat_s=heartbeat_s,
                offer_s=offer_s,
                telemetry_s=telemetry_s,
                artifact_url=artifact_url,
                certificate=self._certify(),
            )
        )

    def renewal(self) -> Renewal | None:
        """A new certificate, once half of the last one's time is over."""
        if self._clock_ms() < self._renew_ms:
            return None
        return Renewal(certificate=self._certify())

    def _certify(self) -> bytes:
        now_ms = self._clock_ms()
        self._renew_ms = now_ms + self._certificate_ms // 2
        made = certificate(
            self._key,
            network=self._network,
            peer_id=self.peer_id,
            region=self._region,
            incarnation=self.incarnation,
            expires_ms=now_ms + self._certificate_ms,
            now_ms=now_ms,
        )
        self._certificates = (*self._certificates[-1:], made)
        return made

    def receive(self, raw: bytes) -> Heard:
        """One statement of the live session, in rising order of its counter."""
        if self._guard is None:
            raise NotYet("a statement came before the handshake was done")
        opened = self._open(self._shown(raw))
        if opened.header.audience == envelope.ANYONE:
            raise WrongAudience("a statement to the coordinator names it as audience")
        kind = _KINDS.get(opened.header.type)
        if kind is None:
            raise Malformed(f"{opened.header.type!r} is not a node's to say")
        message = opened.body(kind)
        self._guard.check(opened)
        return Heard(message, opened.raw)

    def receive_advert(self, data: bytes) -> tuple[Offer, bytes] | None:
        """A gossiped offer and its envelope, which is evidence; None for the newest one once more."""
        advert = decode_advert(data)
        if self._guard is None:
            raise NotYet("an offer came before the handshake was done")
        if advert.certificate not in self._certificates:
            # Its offer may be of a session before this one, and then that is what is wrong.
            self.receive_offer(advert.offer, look=True)
            raise NotCertified("the offer does not carry a certificate of this session")
        offer = self.receive_offer(advert.offer)
        return (offer, advert.offer) if offer is not None else None

    def receive_offer(self, raw: bytes, *, look: bool = False) -> Offer | None:
        """A gossiped offer; None for the newest one once more (it came by another gateway too). `look` changes
        nothing."""
        opened = self._open(raw, limit_bytes=GOSSIP_BYTES_MAX)
        if self._guard is None:
            raise NotYet("an offer came before the handshake was done")
        incarnation, counter = opened.sequence
        offer = opened.body(Offer)
        device = offer.device.device_id
        last = self._last_offers.get(device, -1)
        if incarnation != self._guard.incarnation or counter < last:
            raise Replayed(f"offer {opened.sequence} is older than {(self._guard.incarnation, last)}")
        if counter == last:
            return None
        if offer.region != self._region:
            raise WrongRegion(f"certified for the region {self._region!r}, not {offer.region!r}")
        if last < 0 and len(self._last_offers) >= DEVICES_MAX:
            raise TooFast(f"more than {DEVICES_MAX} devices in one session")
        if not look:
            self._last_offers[device] = counter
        return offer

    def seal(self, message: FromCoordinator) -> bytes:
        """Signed, then encrypted where somebody stands between."""
        assert self._nonce is None, "a Hello was received"
        sealed = self._sealer.seal(message)
        if self._exchange is None:
            return sealed
        assert self._channel is not None, "made by the Hello"
        return self._channel.encrypt(sealed)

    def _shown(self, raw: bytes) -> bytes:
        """The envelope in a frame. With an exchange there is no other way to it than through the channel."""
        if self._exchange is None:
            return raw
        assert self._channel is not None, "made by the Hello"
        return self._channel.decrypt(raw)

    def _open(self, raw: bytes, **limits: int) -> Opened:
        return envelope.open_envelope(
            raw,
            network=self._network,
            audience=self._key.public,
            now_ms=self._clock_ms(),
            sender=self.public_key,
            **limits,
        )

    def _sealer_of(self, incarnation: int) -> Sealer:
        return Sealer(
            self._key,
            network=self._network,
            audience=self.public_key,
            incarnation=incarnation,
            clock_ms=self._clock_ms,
        )


def certificate(
    key: SigningKey, *, network: Network, peer_id: str, region: str, incarnation: int, expires_ms: int, now_ms: int
) -> bytes:
    """Permission to gossip offers (trust P3): the body says until when, the envelope itself proves who gave it.

    It is read as evidence (`envelope.read_evidence`), so the envelope's own short expiry does not end it.
    """
    return envelope.seal(
        Certificate(peer_id=peer_id, region=region, expires_ms=expires_ms),
        key,
        network=network,
        audience=envelope.ANYONE,
        incarnation=incarnation,
        counter=0,
        expires_ms=now_ms + 60_000,
    )
