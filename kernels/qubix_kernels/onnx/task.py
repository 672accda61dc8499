# SPDX-License-Identifier: Apache-2.0
"""Describes a stranger's model, inside a worker's box: reads the file, then runs a unit or two of it."""

import time
from collections.abc import Mapping
from typing import Final

import numpy as np

from qubix_kernels.onnx import model, signature
from qubix_kernels.onnx.card import assumed, card_of, plain
from qubix_kernels.onnx.describe import describe
from qubix_kernels.onnx.frames import DescribeDone, DescribeTask
from qubix_kernels.onnx.refusal import Refused
from qubix_protocol.arrays import Array
from qubix_protocol.models import TEXT_MAX, ModelCard, ModelRefusal

_BY_THE_INPUTS: Final = frozenset(["cannot_run", "inputs", "no_batch"])
"""What may come of zeros alone: real inputs may do better."""


def run(task: DescribeTask, data: bytes, inputs: Mapping[str, Array]) -> DescribeDone:
    """`inputs`: those of the task, opened. Raises MemoryError."""
    began = time.perf_counter()
    card: ModelCard | None = None
    refusal: ModelRefusal | None = None
    needs: tuple[str, ...] = ()
    text = ""
    try:
        card, facts = _read(data)
        given = {**_zeros(task), **inputs} or assumed(facts)
        if isinstance(given, tuple):
            needs = given
        else:
            text = _tried(data, given, task.whole)
    except Refused as refused:
        refusal = refusal_of(refused)
        if card is not None and refused.code in _BY_THE_INPUTS and not (task.inputs or task.forms):
            needs = tuple(port.name for port in card.inputs)
    return DescribeDone(
        card=card,
        signature=text,
        needs=tuple(plain(name) for name in needs),
        refusal=refusal,
        run_ms=(time.perf_counter() - began) * 1000,
    )


def refusal_of(refused: Refused) -> ModelRefusal:
    return ModelRefusal(
        code=refused.code, problem=plain(refused.problem, TEXT_MAX), remedy=plain(refused.remedy, TEXT_MAX)
    )


def _read(data: bytes) -> tuple[ModelCard, model.Facts]:
    found = model.checked(data)
    facts = model.facts_of(found)
    return card_of(found, facts, len(data)), facts


def _zeros(task: DescribeTask) -> dict[str, Array]:
    return {name: np.broadcast_to(np.zeros((), form.dtype), form.shape) for name, form in task.forms.items()}


def _tried(data: bytes, given: Mapping[str, Array], whole: tuple[str, ...]) -> str:
    """The signature, as a job takes it."""
    text = describe(data, given, whole).signature.text()
    try:
        signature.decode(text)
    except ValueError as error:
        remedy = "rename inputs and outputs to short plain words"
        raise Refused("names", f"what the model calls its parts cannot be sent: it {error}", remedy) from error
    return text
