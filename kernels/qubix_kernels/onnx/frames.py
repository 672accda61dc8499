# SPDX-License-Identifier: Apache-2.0
"""What parent and worker say to each other when a model is described."""

from typing import Annotated

from msgspec import Meta

from qubix_kernels.frames import Frame, Milliseconds
from qubix_kernels.onnx.signature import SIGNATURE_CHARS_MAX
from qubix_protocol.arrays import ArrayMeta
from qubix_protocol.models import Label, ModelCard, ModelRefusal
from qubix_protocol.units import INPUTS_MAX


class DescribeTask(Frame, frozen=True, kw_only=True, tag="describe"):
    """Read this model (a `.npy` of its bytes) and run a unit or two of it, on `inputs` (`.npy` files, by name) and on
    zeros of `forms`; without either, on zeros of the shapes that the model itself declares."""

    model: str
    inputs: dict[str, str]
    forms: dict[str, ArrayMeta]
    whole: tuple[str, ...]


class DescribeDone(Frame, frozen=True, kw_only=True, tag="describe_done"):
    """`signature` is empty when no trial could be made: then there is a refusal, or `needs` names the inputs whose
    shapes must be given (and a refusal says what zeros led to)."""

    card: ModelCard | None
    signature: Annotated[str, Meta(max_length=SIGNATURE_CHARS_MAX)]
    needs: Annotated[tuple[Label, ...], Meta(max_length=INPUTS_MAX)]
    refusal: ModelRefusal | None
    run_ms: Milliseconds
