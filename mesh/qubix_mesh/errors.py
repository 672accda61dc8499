# SPDX-License-Identifier: Apache-2.0
"""What a mesh can say no with.

MeshError
├── BadAddress        the text is not a multiaddr that can be dialled or listened on
├── BadPin            the file with the coordinator's key cannot be used
├── NotKnown          nobody told whose certificates to believe, or somebody tells otherwise than before
├── NotListening      no listen address could be opened
├── DialFailed        the peer could not be reached, or is not who the address says
├── NotConnected      a stream was asked for without a connection to its peer
├── StreamClosed      the other side (or we) closed the stream, or its connection is gone
├── FrameTooLarge     a length over the limit, refused before any memory was set aside
├── MeshTimeout       the deadline passed
└── AlreadySubscribed one subscription a topic: fan out on the receiving side
"""


class MeshError(Exception):
    """`code` is constant and countable; the message is for people."""

    code = "mesh"


class BadAddress(MeshError):
    code = "bad_address"


class BadPin(MeshError):
    code = "bad_pin"


class NotKnown(MeshError):
    code = "market_not_known"


class NotListening(MeshError):
    code = "not_listening"


class DialFailed(MeshError):
    code = "dial_failed"


class NotConnected(MeshError):
    code = "not_connected"


class StreamClosed(MeshError):
    code = "stream_closed"


class FrameTooLarge(MeshError):
    code = "frame_too_large"


class MeshTimeout(MeshError):
    code = "timeout"


class AlreadySubscribed(MeshError):
    code = "already_subscribed"
