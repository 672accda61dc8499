# SPDX-License-Identifier: Apache-2.0
"""What the devnet can fail with.

DevnetError
├── CannotStart      port, folder or data that cannot be used (exit status 1)
└── ApiError         what a caller is told, as the network's gateways say it: {"code", "message", "details"}
    ├── BadRequest   code 3, HTTP 400
    ├── Missing      code 5, HTTP 404
    ├── Internal     code 13, HTTP 500
    ├── TooMany      code 8, HTTP 429
    └── Forbidden    code 7, HTTP 403
"""


class DevnetError(Exception):
    """The message is for people, and ends with what to do."""


class CannotStart(DevnetError):
    pass


class ApiError(DevnetError):
    """`code` is gRPC's, which the network's gateways use."""

    code = 13
    status = 500


class BadRequest(ApiError):
    code = 3
    status = 400


class Missing(ApiError):
    code = 5
    status = 404


class Internal(ApiError):
    pass


class TooMany(ApiError):
    code = 8
    status = 429


class Forbidden(ApiError):
    code = 7
    status = 403
