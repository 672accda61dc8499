# SPDX-License-Identifier: Apache-2.0
"""What the gateway can fail with.

GatewayError
├── BadKeyFile     the identity on disk cannot be used (exit status 2)
├── LinkLost       the coordinator is gone: reconnect
└── LinkRefused    the coordinator said no (token, network): reconnect slowly, and tell a person
"""


class GatewayError(Exception):
    """`code` is constant and countable; the message is for people."""

    code = "gateway"


class BadKeyFile(GatewayError):
    code = "bad_key_file"


class LinkLost(GatewayError):
    code = "link_lost"


class LinkRefused(GatewayError):
    code = "link_refused"
