# SPDX-License-Identifier: Apache-2.0
"""From what a person asked for to the signed body of `POST /jobs`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from qubix import where as where_query
from qubix.errors import BadUsage
from qubix.inputs import Source
from qubix.wallet import Wallet
from qubix_protocol import digests
from qubix_protocol.api import InputBody, JobBody, NetworkView
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.messages import InputRef, Order, ParamValue, Peer

_TERMS: Final = ("cap_qu", "provider", "rate_qu_per_h_max", "deadline_s", "spread", "rental", "region", "where")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the consumer agrees to. `cap_qu` is the most the job can ever cost."""

    cap_qu: int
    provider: Peer | None = None
    rate_qu_per_h_max: int | None = None
    deadline_s: int = 3_600
    spread: int | None = None
    rental: str | None = None
    region: str | None = None
    where: str | None = None

    @classmethod
    def of(
        cls,
        cap_qu: int,
        where: str | None,
        provider: str | None,
        rate_qu_per_h_max: int | None,
        deadline_s: int,
        spread: int | None,
        rental: str | None = None,
        region: str | None = None,
    ) -> "Terms":
        """`where` and the plain arguments together. Raises `BadUsage` where they contradict each other."""
        asked = where_query.parse(where or "")
        chosen = where_query.provider(provider) if provider is not None else asked.provider
        if asked.provider not in (None, chosen):
            raise BadUsage("provider", "where= and provider= name different providers", "Name one")
        rates = [rate for rate in (asked.rate_qu_per_h_max, rate_qu_per_h_max) if rate is not None]
        return cls(
            cap_qu=cap_qu,
            provider=chosen,
            rate_qu_per_h_max=min(rates) if rates else None,
            deadline_s=deadline_s,
            spread=spread,
            rental=rental,
            region=region,
            where=asked.line or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`params` are normalised by the kernel; `digests` are of the inputs' artifacts, by name. `forms` are the arrays of
    which only the form is known: enough for an estimate."""

    kernel: str
    params: Mapping[str, ParamValue]
    sources: Mapping[str, Source]
    digests: Mapping[str, bytes] = field(default_factory=dict)
    forms: Mapping[str, ArrayMeta] = field(default_factory=dict)

    def refs(self) -> list[InputRef]:
        return [
            InputRef(name=name, digest=self.digests[name], size_bytes=source.size_bytes, meta=source.meta)
            for name, source in self.sources.items()
        ]


def body_of(work: Work, terms: Terms, order: bytes = b"") -> JobBody:
    """Raises `BadUsage` naming the value that is out of its bounds."""
    if terms.cap_qu < 1 and terms.rental is None:
        raise BadUsage("cap_qu", "cap_qu: the most that the job may cost is 1 QU or more", "Give a cap")
    inputs = {
        ref.name: InputBody(digest=ref.digest.hex(), size_bytes=ref.size_bytes, meta=ref.meta) for ref in work.refs()
    }
    plain: dict[str, Any] = {
        "kernel": work.kernel,
        "inputs": msgspec.to_builtins(inputs),
        "params": dict(work.params),
        "order": order.hex(),
        **{name: getattr(terms, name) for name in _TERMS},
    }
    try:
        return msgspec.convert(plain, JobBody)
    except msgspec.ValidationError as error:
        text, _, at = str(error).partition(" - at `$.")
        raise BadUsage(
            at.rstrip("`") or "job", f"{at.rstrip('`')}: {text}", "Give a value within these bounds"
        ) from None


def sign(work: Work, terms: Terms, key: str, *, wallet: Wallet, network: NetworkView, clock_ms: int) -> JobBody:
    """The body with the consumer's signed order inside (trust M6)."""
    order = Order(
        idempotency_key=key,
        kernel=work.kernel,
        params_digest=digests.of_params(work.params),
        inputs_digest=digests.of_inputs(work.refs()),
        cap_qu=terms.cap_qu,
        rate_qu_per_h_max=terms.rate_qu_per_h_max,
        rental=terms.rental,
    )
    sealed = wallet.sign_order(
        order,
        network=network.network,
        coordinator_key=bytes.fromhex(network.coordinator_key),
        clock_ms=clock_ms,
    )
    return body_of(work, terms, sealed)
