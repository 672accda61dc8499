# SPDX-License-Identifier: Apache-2.0
"""Models, described before a job is made of them."""

from uuid import UUID

from qubix_coordinator.accounts.service import Principal
from qubix_coordinator.http.api import api
from qubix_coordinator.http.context import here
from qubix_coordinator.http.routes import route
from qubix_coordinator.models import service as models
from qubix_protocol.models import ModelBody, ModelView


@route(api, "POST", "/models", scope="user", body=ModelBody, answer=ModelView, status=202, group="models")
async def describe_model(who: Principal, body: ModelBody) -> ModelView:
    """Have an uploaded ONNX model read and one or two units of it run in a box; free. Its state says how far"""
    context = here()
    return await context.db.run(lambda tx: models.ask(tx, who.account_id, body, now_ms=context.now_ms()))


@route(api, "GET", "/models/<uuid:model_id>", scope="user", answer=ModelView, group="models")
async def read_model(who: Principal, model_id: UUID) -> ModelView:
    """What is known of a model: its card, what a unit costs with the signature for a job, or why it is refused"""
    context = here()
    return await context.db.run(lambda tx: models.read(tx, who.account_id, model_id, now_ms=context.now_ms()))
