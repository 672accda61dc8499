# SPDX-License-Identifier: Apache-2.0
"""The routes under /api/v1, a module per subject. Each adds its own to the one blueprint."""

from typing import Final

from quart import Blueprint

PREFIX: Final = "/api/v1"
api: Final = Blueprint("api", __name__, url_prefix=PREFIX)


def load() -> Blueprint:
    """The blueprint with every route on it."""
    from qubix_coordinator.http.api import (  # noqa: F401 - they register
        accounts,
        artifacts,
        deposits,
        disputes,
        earnings,
        history,
        jobs,
        market,
        models,
        network,
        operator,
        order_keys,
        pages,
        pairings,
        provider,
        rentals,
        reserves,
        statements,
        trials,
        wallets,
        withdrawals,
        workers,
    )

    return api
