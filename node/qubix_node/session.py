# SPDX-License-Identifier: Apache-2.0
"""One session with the coordinator, without any IO: what is believed, and how statements leave (trust P1, P2, P4)."""

from collections.abc import Callable
from typing import Final

from qubix_node.clock import steady_ms
from qubix_node.voice import Pins, Voice, told
from qubix_protocol.channel import Channel
from qubix_protocol.envelope import Opened, ReplayGuard, Sealer, open_envelope, read_evidence
from qubix_protocol.errors import Expired, Replayed, WrongAudience
from qubix_protocol.messages import (
    ArtifactRequest,
    Challenge,
    DeviceSample,
    Hello,
    Message,
    Telemetry,
    Welcome,
)
from qubix_protocol.selftest import ProbeRequest
from qubix_protocol.statements import FromCoordinator
from qubix_protocol.units import ENVELOPE_LIFE_MS_MAX, FRAME_BYTES_MAX

_PASS_LIFE_MS: Final = 30_000


def believe_challenge(raw: bytes, pins: Pins) -> Challenge:
    """Raises `ProtocolError`. Its expiry is judged by the clock inside it: no offset is known before the first one.

    A replayed challenge is harmless: nobody can answer what its nonce leads to with a new incarnation.
    """
    opened = read_evidence(raw, network=pins.network, sender=pins.coordinator)
    if opened.header.audience != pins.key.public:
        raise WrongAudience("the challenge is meant for somebody else")
    challenge = opened.body(Challenge)
    if not 0 <= opened.header.expires_ms - challenge.clock_ms <= ENVELOPE_LIFE_MS_MAX:
        raise Expired("the challenge's expiry does not fit its clock")
    if opened.header.incarnation != 0:
        raise Replayed(f"a challenge of incarnation {opened.header.incarnation}")
    return challenge


def answer(challenge: Challenge, hello: Hello, pins: Pins, channel: Channel, wall_ms: Callable[[], int]) -> bytes:
    """The only statement of incarnation 0, sealed by the clock that the challenge tells, and the first encrypted."""
    offset = challenge.clock_ms - wall_ms()
    sealer = Sealer(
        pins.key,
        network=pins.network,
        audience=pins.coordinator,
        incarnation=0,
        clock_ms=lambda: wall_ms() + offset,
    )
    return channel.encrypt(sealer.seal(hello), hello.exchange)


class Session:
    """Made from a believed welcome. Three series of counters, since three paths are not ordered with each other."""

    def __init__(
        self,
        pins: Pins,
        welcome: Welcome,
        guard: ReplayGuard,
        channel: Channel,
        wall_ms: Callable[[], int],
        steady_ms: Callable[[], int] = steady_ms,
    ) -> None:
        """`steady_ms` carries the coordinator's clock on from the welcome: somebody may set ours meanwhile."""
        self.welcome: Final = welcome
        self._channel = channel
        self._pins, self._guard, self._wall_ms, self._steady_ms = pins, guard, wall_ms, steady_ms
        self._offset_ms = welcome.clock_ms - steady_ms()
        self.voice: Final = Voice(
            pins,
            welcome.certificate,
            incarnation=welcome.incarnation,
            clock_ms=self.coordinator_ms,
            wall_ms=wall_ms,
        )
        self._control = self._sealer(pins.coordinator)
        self._passes = self._sealer(pins.coordinator, life_ms=_PASS_LIFE_MS)

    @classmethod
    def begin(
        cls,
        raw: bytes,
        challenge: Challenge,
        pins: Pins,
        channel: Channel,
        wall_ms: Callable[[], int],
        steady_ms: Callable[[], int] = steady_ms,
    ) -> "Session":
        """From the frame that should be the welcome. Raises `ProtocolError`. The caller must still refuse an
        incarnation that is not higher than every one before it."""
        opened = open_envelope(
            channel.decrypt(raw),
            network=pins.network,
            audience=pins.key.public,
            now_ms=challenge.clock_ms,
            sender=pins.coordinator,
        )
        welcome = opened.body(Welcome)
        guard = ReplayGuard(welcome.incarnation)
        guard.check(opened)
        return cls(pins, welcome, guard, channel, wall_ms, steady_ms)

    def _sealer(self, audience: bytes, life_ms: int = 60_000) -> Sealer:
        return Sealer(
            self._pins.key,
            network=self._pins.network,
            audience=audience,
            incarnation=self.welcome.incarnation,
            clock_ms=self.coordinator_ms,
            life_ms=life_ms,
        )

    def coordinator_ms(self) -> int:
        return self._steady_ms() + self._offset_ms

    def believe(self, raw: bytes) -> Message:
        """A command of this session, each once. Raises `ProtocolError`."""
        opened: Opened = open_envelope(
            self._channel.decrypt(raw),
            network=self._pins.network,
            audience=self._pins.key.public,
            now_ms=self.coordinator_ms(),
            sender=self._pins.coordinator,
            limit_bytes=FRAME_BYTES_MAX,
        )
        if opened.header.audience != self._pins.key.public:
            raise WrongAudience("a command must name its node")
        self._guard.check(opened)
        message: Message = opened.body(FromCoordinator)  # type: ignore[arg-type]
        return message

    def seal(self, message: Message) -> bytes:
        """For the control stream: send in the order of sealing."""
        if isinstance(message, Telemetry):
            shift_ms = self.voice.shift_ms
            samples = [
                DeviceSample(device_id=one.device_id, sample=told(one.sample, shift_ms)) for one in message.samples
            ]
            message = Telemetry(samples=tuple(samples))
        return self._channel.encrypt(self._control.seal(message))

    def seal_pass(self, request: ArtifactRequest | ProbeRequest) -> bytes:
        """For one HTTP request."""
        return self._passes.seal(request)
