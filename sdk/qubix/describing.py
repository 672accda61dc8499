# SPDX-License-Identifier: Apache-2.0
"""A model described by the market, in a verifier's box: where no onnxruntime is here, and for a look before a job."""

import importlib.util
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np

from qubix import models
from qubix.errors import BadUsage
from qubix.inputs import ArraySource, Source, digest_of, source_of
from qubix.session import Session
from qubix.uploads import OnUpload, upload
from qubix_kernels.onnx.signature import MODEL, PARAM
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.models import ModelBody, ModelInputBody, ModelState, ModelView

TRIED_BYTES_MAX: Final = 64 * 1024 * 1024
"""A larger input is told by its form alone: the market would not read its values."""
_POLL_FIRST_S: Final = 0.1
_POLL_MAX_S: Final = 1.0
_LIBRARIES: Final = ("onnx", "onnxruntime")


async def describe(
    session: Session,
    model: Any,
    inputs: Mapping[str, Any],
    whole: Collection[str] = (),
    on_upload: OnUpload | None = None,
) -> ModelView:
    """Uploads the model and what is given to it, and waits for what a verifier finds. Costs nothing."""
    aside = session.port.aside
    data = await aside(lambda: models.model_bytes(model))
    digest = await _sent(session, ArraySource(MODEL, np.frombuffer(data, np.uint8)), on_upload)
    bodies = {name: await _input(session, name, value, on_upload) for name, value in inputs.items()}
    body = ModelBody(digest=digest, inputs=bodies, whole=tuple(whole))
    view = await session.post("/models", body, ModelView)
    wait_s = _POLL_FIRST_S
    while view.state is ModelState.WAITING:
        await session.port.sleep(wait_s)
        wait_s = min(_POLL_MAX_S, 1.5 * wait_s)
        view = await session.get(f"/models/{view.model_id}", ModelView)
    return view


async def signed(session: Session, given: Mapping[str, Any], on_upload: OnUpload | None = None) -> dict[str, Any]:
    """`given` of an onnx job, with the signature: by the market where no trial can be made here. Raises `BadUsage`."""
    if MODEL not in given or PARAM in given or tried_here():
        return dict(given)
    inputs = {name: value for name, value in given.items() if name not in (MODEL, models.WHOLE)}
    view = await describe(session, given[MODEL], inputs, models.listed(given.get(models.WHOLE, ())), on_upload)
    if view.work is None or view.card is None:
        why = view.refusal
        problem = f"model: {why.problem}" if why else "model: it needs inputs of known shapes"
        raise BadUsage(MODEL, problem, (why.remedy if why else "") or models.REMEDY)
    wire = {port.name: port.wire for port in view.card.inputs}
    plain = {wire.get(name, name): value for name, value in inputs.items()}
    return {**plain, MODEL: given[MODEL], PARAM: view.work.signature}


def tried_here() -> bool:
    """Whether this machine can run a model itself."""
    return all(importlib.util.find_spec(name) is not None for name in _LIBRARIES)


async def _input(session: Session, name: str, value: Any, on_upload: OnUpload | None) -> ModelInputBody:
    if isinstance(value, ArrayMeta):
        return ModelInputBody(meta=value)
    source = await session.port.aside(lambda: source_of(name, value))
    if source.size_bytes > TRIED_BYTES_MAX:
        return ModelInputBody(meta=source.meta)
    return ModelInputBody(meta=source.meta, digest=await _sent(session, source, on_upload))


async def _sent(session: Session, source: Source, on_upload: OnUpload | None) -> str:
    digest = await session.port.aside(lambda: digest_of(source))
    await upload(session, source, digest, on_upload)
    return digest.hex()
