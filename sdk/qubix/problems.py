# SPDX-License-Identifier: Apache-2.0
"""From a problem+json answer to the error that names it."""

from typing import Final

import msgspec

from qubix import errors
from qubix.errors import ApiError
from qubix.transport import Reply
from qubix_protocol.api import Problem

BY_CODE: Final[dict[str, type[ApiError]]] = {"not_enough_balance": errors.NotEnoughBalance}
BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: errors.InvalidInput,
    401: errors.Unauthorised,
    402: errors.NotEnoughBalance,
    403: errors.Forbidden,
    404: errors.NotFound,
    408: errors.Unavailable,
    409: errors.Conflict,
    413: errors.InvalidInput,
    415: errors.InvalidInput,
    422: errors.InvalidInput,
    429: errors.LimitExceeded,
}

SIGN_IN: Final = (
    "Sign in with `qubix wallet login`, or set QUBIX_TOKEN; on the market's own machine, set QUBIX_DATA_DIR to its data"
    " folder."
)
"""In place of the coordinator's remedy for who shows no token that counts, which speaks of HTTP."""


def error_of(reply: Reply, what: str) -> ApiError:
    """`what` names the request, for an answer that is no problem+json."""
    problem = _problem(reply, what)
    kind = BY_CODE.get(problem.code) or BY_STATUS.get(reply.status)
    if kind is None:
        kind = errors.Unavailable if reply.status >= 500 else ApiError
    return kind(
        problem.detail or problem.title,
        status=reply.status,
        code=problem.code,
        detail=problem.detail,
        remedy=SIGN_IN if kind is errors.Unauthorised else problem.remedy,
        field=problem.field,
        problems=problem.problems,
    )


def _problem(reply: Reply, what: str) -> Problem:
    try:
        return msgspec.json.decode(reply.content, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Problem(
            type="about:blank",
            title=f"{what} was answered with HTTP status {reply.status}",
            status=reply.status,
            code=f"http_{reply.status}",
            remedy="Check that QUBIX_COORDINATOR_URL is the address of a QUBIX coordinator.",
        )
