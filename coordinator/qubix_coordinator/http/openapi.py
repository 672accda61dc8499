# SPDX-License-Identifier: Apache-2.0
"""The API's description, OpenAPI 3.1, from the routes themselves.

quart-schema as it comes writes dangling references for nested msgspec structs; this provider names every struct as a
component, tells problem+json apart, and lists the WebSockets under `x-websockets`.
"""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec
from quart import Quart
from quart_schema import Info, OpenAPIProvider, QuartSchema
from quart_schema.openapi import QUART_SCHEMA_OPERATION_ID_ATTRIBUTE, HttpSecurityScheme
from werkzeug.routing import BaseConverter, UUIDConverter
from werkzeug.routing.rules import Rule

from qubix_protocol.account_news import AccountNews
from qubix_protocol.api import LiveEvent, MarketDelta, Problem, Subscribe
from qubix_protocol.browser import BROWSER_PATH

Parts = tuple[Any, dict[str, Any]]
_REFERENCE: Final = "#/components/schemas/{name}"


class Binary:
    """A body that is not JSON. `media` is its type."""

    media: ClassVar[str] = "application/octet-stream"


class Npy(Binary):
    """One `.npy` file."""


class Text(Binary):
    """Text for machines."""

    media = "text/plain"


class Signed(Binary):
    """A signed envelope."""

    media = "application/msgpack"


def _component(model: Any) -> Parts:
    (reference,), components = msgspec.json.schema_components([model], ref_template=_REFERENCE)
    return reference, components


def _content(model: Any) -> Parts:
    if inspect.isclass(model) and issubclass(model, Binary):
        return {model.media: {"schema": {"type": "string", "format": "binary"}}}, {}
    reference, components = _component(model)
    media = "application/problem+json" if model is Problem else "application/json"
    return {media: {"schema": reference}}, components


def _said(model: Any) -> str:
    return (inspect.getdoc(model) or str(model.__name__)).splitlines()[0]


class Provider(OpenAPIProvider):
    def build_path_parameter(self, name: str, converter: BaseConverter) -> dict[str, Any]:
        built = super().build_path_parameter(name, converter)
        if isinstance(converter, UUIDConverter):
            built["schema"] = {"type": "string", "format": "uuid"}
        return built

    def build_querystring_parameters(self, model: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        _, components = _component(model)
        schema = components.pop(model.__name__)
        required = set(schema.get("required", ()))
        return [
            {"name": name, "in": "query", "required": name in required, "schema": kind}
            for name, kind in schema["properties"].items()
        ], components

    def build_request_body(self, model: Any, source: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        content, components = _content(model)
        return {"required": True, "content": content}, components

    def build_response_object(self, model: Any, headers_model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        content, components = _content(model)
        return {
            "description": _said(model),
            "content": content,
        }, components

    def operation_id(self, method: str, path: str, func: Callable[..., Any]) -> str | None:
        named: str = getattr(func, QUART_SCHEMA_OPERATION_ID_ATTRIBUTE, func.__name__)
        return named

    def generate_methods(self, rule: Rule) -> list[str]:
        return sorted(super().generate_methods(rule))


def install(app: Quart, version: str) -> None:
    QuartSchema(
        app,
        openapi_path=None,
        conversion_preference="msgspec",
        openapi_provider_class=Provider,
        info=Info(title="QUBIX", version=version, description="A GPU marketplace: offers, jobs, results and receipts."),
        security_schemes={"token": HttpSecurityScheme(scheme="bearer")},
    )


def describe(app: Quart) -> dict[str, Any]:
    """The whole document. It does not change while the process runs."""
    extension = app.extensions["QUART_SCHEMA"]
    document: dict[str, Any] = extension.openapi_provider.schema()
    said, components = msgspec.json.schema_components(
        [Subscribe, LiveEvent, MarketDelta, AccountNews], ref_template=_REFERENCE
    )
    document["components"]["schemas"].update(components)
    document["x-websockets"] = {
        "/live": {"send": said[0], "receive": said[1]},
        BROWSER_PATH: {
            "description": "For browser tabs that share a GPU: MessagePack frames, see qubix_protocol.browser."
        },
        "/mesh/link": {"description": "For gateways: MessagePack batches, see qubix_protocol.link."},
    }
    return document
