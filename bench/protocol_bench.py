# SPDX-License-Identifier: Apache-2.0
"""What `msgpack` + `msgspec.convert` cost beside msgspec's own decoder, and a whole verified envelope (ADR 0002)."""

from collections.abc import Callable

import msgspec

from bench.figures import Figure, beside, median_s
from qubix_protocol import codec
from qubix_protocol.envelope import open_envelope, seal
from qubix_protocol.keys import SigningKey, verify
from qubix_protocol.messages import Beat, Heartbeat
from qubix_protocol.statements import FromNode

_CALLS = 2_000


def run() -> list[Figure]:
    beat = Beat(attempt_id="00000000-0000-0000-0000-000000000001", fence=1, fraction=0.5, elapsed_ms=1)
    message = Heartbeat(attempts=(beat,))
    raw = codec.encode(message)
    decoder = msgspec.msgpack.Decoder(FromNode)
    ours = _each_us(lambda: codec.decode(raw, FromNode))  # type: ignore[arg-type]
    theirs = _each_us(lambda: decoder.decode(raw))
    return [
        beside("decode a heartbeat", ours, "µs", limit=theirs, limit_name="msgspec's own decoder"),
        _envelope(message),
    ]


def _envelope(message: Heartbeat) -> Figure:
    key, audience = SigningKey.generate(), SigningKey.generate().public
    sealed = seal(message, key, network="devnet", audience=audience, incarnation=1, counter=1, expires_ms=1)

    def open_it() -> None:
        open_envelope(sealed, network="devnet", audience=audience, now_ms=1).body(Heartbeat)

    opened = _each_us(open_it)
    signature = key.sign(sealed)
    bare = _each_us(lambda: verify(key.public, sealed, signature))
    return beside("open and verify an envelope", opened, "µs", limit=bare, limit_name="Ed25519 verification alone")


def _each_us(work: Callable[[], object]) -> float:
    def many() -> None:
        for _ in range(_CALLS):
            work()

    return median_s(many, repeats=5) / _CALLS * 1e6
