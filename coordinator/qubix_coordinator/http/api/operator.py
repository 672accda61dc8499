# SPDX-License-Identifier: Apache-2.0
"""What whoever runs the market sees of it."""

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http import operation
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_protocol.operation import OperatorView


@route(api, "GET", "/operator/overview", scope="operator", answer=OperatorView, group="operator")
async def get_operator_overview(who: Principal) -> OperatorView:
    """Health of every process, the chain, the queue, the newest audit, providers, disputes and money (operators)"""
    return await operation.overview(here())
