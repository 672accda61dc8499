# SPDX-License-Identifier: Apache-2.0
"""The protocol's errors.

ProtocolError
├── Malformed        the bytes are not what they should be
├── TooLarge         refused by its size, before it was read
├── QueryError       a query line that means nothing (in `query.errors`); names the column
└── NotGenuine       well-formed, but not to be believed
    ├── BadSignature · WrongNetwork · WrongAudience · WrongVersion · Expired · Replayed
    └── NotCertified · WrongRegion · TooFast    (gossip alone)
"""


class ProtocolError(Exception):
    """`code` is constant and countable; the message is for people."""

    code = "protocol"


class Malformed(ProtocolError):
    code = "malformed"


class TooLarge(ProtocolError):
    code = "too_large"


class NotGenuine(ProtocolError):
    code = "not_genuine"


class BadSignature(NotGenuine):
    code = "bad_signature"


class WrongNetwork(NotGenuine):
    code = "wrong_network"


class WrongAudience(NotGenuine):
    code = "wrong_audience"


class WrongVersion(NotGenuine):
    code = "wrong_version"


class Expired(NotGenuine):
    code = "expired"


class Replayed(NotGenuine):
    code = "replayed"


class NotCertified(NotGenuine):
    code = "not_certified"


class WrongRegion(NotGenuine):
    code = "wrong_region"


class TooFast(NotGenuine):
    code = "too_fast"
