# SPDX-License-Identifier: Apache-2.0
"""Units and bounds: every size, count and time limit that crosses a wire stands here, once."""

from typing import Final, Literal, NewType

Qu = NewType("Qu", int)
"""An amount of QU, the coin of the Qubic network; always a whole number."""

PeerId = NewType("PeerId", str)
"""A libp2p peer id in base58; for Ed25519 keys it contains the public key itself (see `keys`)."""

Network = Literal["devnet", "test", "main"]
NETWORKS: Final[tuple[Network, ...]] = ("devnet", "test", "main")

PROTOCOL_VERSION: Final = 1
CONTROL_PROTOCOL: Final = "/qubix/control/1"
"""The libp2p protocol of the one stream that a node keeps open to a gateway."""

QU_MAX: Final = 1_000_000_000_000_000
"""More than the whole supply of QU (2 × 10^14): a larger figure is an error, not a fortune."""
RATE_QU_PER_H_MAX: Final = 1_000_000_000_000

FRAME_BYTES_MAX: Final = 256 * 1024
"""One control frame or gossip message; data never travels this way."""
GOSSIP_BYTES_MAX: Final = 16 * 1024
LINK_MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""One WebSocket message between a gateway and the coordinator."""

ARRAY_DIMS_MAX: Final = 8
ARRAY_BYTES_MAX: Final = 8 * 1024**3
ARTIFACT_BYTES_MAX: Final = 8 * 1024**3
INPUTS_MAX: Final = 16
PARAMS_MAX: Final = 32
UNITS_MAX: Final = 2**40
CHUNKS_MAX: Final = 4096
"""Links in one attempt."""
SPREAD_MAX: Final = 64
"""Providers that one job may be with at once."""

RENTAL_S_MIN: Final = 10
RENTAL_S_MAX: Final = 30 * 86_400
RENTALS_MAX: Final = 64
"""Open at once on one node: one for each of its devices."""

SETTLEMENTS_MAX: Final = 32
"""Told again in one answer."""
THROTTLE_MAX: Final = 16
"""Reasons that one reading may name for a lowered clock."""

READINGS_MAX: Final = 720
"""Of one device in one answer: an hour at the usual pace; a longer time is thinned to as many."""
READINGS_MINUTES_MAX: Final = 24 * 60

HEARTBEAT_S: Final = 2.0
PROGRESS_S_MAX: Final = 5.0
OFFER_S: Final = 30.0
OFFER_LIFE_MS: Final = 60_000
"""A gossiped offer expires so long after it was said, so that its expiry tells when that was."""
DEVICES_MAX: Final = 64
"""Of one node in the market."""
RELAY_ADDRESSES_MAX: Final = 4
CERTIFICATE_BYTES_MAX: Final = 1024
READING_AGE_S_MAX: Final = 15.0
"""A node sends no reading as its newest that is older than this."""
LEASE_S: Final = 10.0
ENVELOPE_LIFE_MS_MAX: Final = 120_000
"""How far ahead an envelope's expiry may lie: bounds what a replay store must remember."""

TEXT_MAX: Final = 2_000


def offers_topic(network: Network, region: str) -> str:
    """The gossip topic of one region's offers."""
    return f"qubix/{network}/offers/{region}"
