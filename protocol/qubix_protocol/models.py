# SPDX-License-Identifier: Apache-2.0
"""A consumer's model as the market describes it: what the file says, what a unit of it costs, or why it is refused.

All of it comes out of a box in which a stranger's file was read and run: bounded by type, and shown as text alone.
"""

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from qubix_protocol.api import Body, HexDigest, View
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.messages import Name
from qubix_protocol.units import INPUTS_MAX

OPERATORS_MAX: Final = 64
_OPSETS_MAX: Final = 8
TEXT_MAX: Final = 1_000
_PLAIN: Final = r"^[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*$"
"""Nothing that a terminal or a database could take for more than text."""
Label = Annotated[str, Meta(pattern=_PLAIN, max_length=256)]
Said = Annotated[str, Meta(pattern=_PLAIN, max_length=TEXT_MAX)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Dimension = Annotated[int, Meta(ge=0, le=2**31)] | Annotated[str, Meta(pattern=_PLAIN, max_length=64)]


class ModelState(StrEnum):
    """`waiting` for a verifier process; then, for good: `described`; `declared`, read but not run, since its inputs'
    shapes were needed; `refused`; or `failed`, when nothing was found out."""

    WAITING = "waiting"
    DESCRIBED = "described"
    DECLARED = "declared"
    REFUSED = "refused"
    FAILED = "failed"


class ModelPort(View, frozen=True, kw_only=True):
    """One input or output under the model's own `name`; `wire` is what a job calls it. A size that the model leaves
    open is its name there, or `?`; `dims` is None where it declares no shape."""

    name: Label
    wire: Label
    dtype: Annotated[str, Meta(max_length=32)]
    dims: Annotated[tuple[Dimension, ...], Meta(max_length=64)] | None


class ModelCard(View, frozen=True, kw_only=True):
    """What the file says of itself; nothing was run. `operators` are the most frequent ones, with how often each is in
    the graph; `opsets` by domain, where "" is ai.onnx."""

    size_bytes: Count
    ir_version: Count
    opsets: Annotated[dict[Label, Count], Meta(max_length=_OPSETS_MAX)]
    producer: Label
    inputs: Annotated[tuple[ModelPort, ...], Meta(max_length=INPUTS_MAX)]
    outputs: Annotated[tuple[ModelPort, ...], Meta(max_length=INPUTS_MAX)]
    parameters: Count
    nodes: Count
    operators: Annotated[dict[Label, Count], Meta(max_length=OPERATORS_MAX)]


class ModelRefusal(View, frozen=True, kw_only=True):
    """Why it cannot run here as it is. `code` is for programs."""

    code: Name
    problem: Said
    remedy: Said


class ModelWork(View, frozen=True, kw_only=True):
    """What a trial of one or two units found. `signature` is the parameter of that name of a job of kernel `onnx`; it
    has the rest: shapes of a unit, and outputs. `batch` units run together; of `units` (0: no inputs were given yet)
    a check runs `checked_units` again. `zeros`: the trial ran on zeros for some input."""

    signature: str
    mode: str
    flops: float
    bytes_moved: float
    memory_bytes: int
    batch: int
    units: int
    checked_units: int
    zeros: bool


class ModelInputBody(Body, frozen=True, kw_only=True):
    """An input's form, and the digest of its `.npy` artifact where that was uploaded: the trial reads its values."""

    meta: ArrayMeta
    digest: HexDigest | None = None


class ModelBody(Body, frozen=True, kw_only=True):
    """`POST /models`. `digest`: of the artifact that a job would get, the .onnx file's bytes as a `.npy` of uint8.
    `inputs` by the model's own names, or the wire's; none: shapes are taken from the model where it has them. `whole`
    names inputs that every unit gets as they are."""

    digest: HexDigest
    inputs: Annotated[dict[Label, ModelInputBody], Meta(max_length=INPUTS_MAX)] = msgspec.field(default_factory=dict)
    whole: Annotated[tuple[Label, ...], Meta(max_length=INPUTS_MAX)] = ()


class ModelView(View, frozen=True, kw_only=True):
    """`POST /models` and `GET /models/MODEL_ID`. `needs` names inputs whose shapes the model leaves open: ask again
    with them. Nothing is billed."""

    model_id: str
    digest: str
    state: ModelState
    card: ModelCard | None = None
    work: ModelWork | None = None
    refusal: ModelRefusal | None = None
    needs: tuple[str, ...] = ()
    asked_ms: int
    due_ms: int
    took_ms: int = 0
