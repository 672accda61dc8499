# SPDX-License-Identifier: Apache-2.0
"""What went wrong, in words with a next step. Pure."""

from typing import Final, NamedTuple

from qubix.errors import ApiError, BadUsage, CannotReach, Forbidden, NotFound, QubixError, Unauthorised

_SIGN_IN: Final = "Sign in on the Wallet screen (6, then l), or set QUBIX_TOKEN."
_HERE: Final = {
    "job_id": "The Jobs screen (3) shows your jobs.",
    "rental_id": "The Rentals screen (4) shows your rentals.",
    "dispute_id": "The Disputes screen (7) shows your disputes.",
    "listing_id": "It may have left the market: look at the Market screen (1).",
}
"""By field, where the coordinator's remedy speaks of HTTP."""
_FOR_ROUTES: Final = {
    "/wallet/bind": "Bind it first: `qubix wallet login --bind`.",
    "/account/addresses": "List it first on the Wallet screen (a).",
}


class Told(NamedTuple):
    """`problem` is one sentence; `remedy` what to do next, never empty."""

    problem: str
    remedy: str
    unforeseen: bool = False

    def line(self) -> str:
        return f"{self.problem}. {self.remedy}" if self.problem[-1:] not in ".!?" else f"{self.problem} {self.remedy}"


def told(error: BaseException) -> Told:
    if isinstance(error, QubixError):
        return Told(_problem(error), _remedy(error))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Told(f"{where}{error.strerror or error}", "Check the path and what you may read and write, then retry.")
    return Told(
        f"something that nobody foresaw went wrong ({type(error).__name__}: {str(error)[:200]})",
        "Try again; if it stays, report it with the file tui/tui.log of the data folder.",
        unforeseen=True,
    )


def _problem(error: QubixError) -> str:
    more = [f"{one.field}: {one.problem}" for one in error.problems] if isinstance(error, ApiError) else []
    by_field = isinstance(error, (BadUsage, ApiError)) and not isinstance(error, Unauthorised)
    field = getattr(error, "field", "") if by_field else ""
    named = f"{field}: " if field and field not in error.problem and not more else ""
    return "; ".join([f"{named}{error.problem}", *more])


def _remedy(error: QubixError) -> str:
    if isinstance(error, Unauthorised):
        return _SIGN_IN
    if isinstance(error, NotFound) and error.field in _HERE:
        return _HERE[error.field]
    if isinstance(error, CannotReach):
        return "Start a market with `qubix up`, or set QUBIX_COORDINATOR_URL; this screen tries again by itself."
    if isinstance(error, Forbidden) and not error.remedy:
        return "Sign in with a wallet that may do this."
    ours = next((text for path, text in _FOR_ROUTES.items() if path in error.remedy), error.remedy)
    return ours or "Try again in a moment."
