# SPDX-License-Identifier: Apache-2.0
"""A job's units through a session, in batches of a fixed size, and its model held to its signature first."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from qubix_kernels.kernel import Arrays, BadInput
from qubix_kernels.onnx import model
from qubix_kernels.onnx.session import Session
from qubix_kernels.onnx.signature import MODEL, Signature, Tensor
from qubix_kernels.onnx.trial import Trial, trial
from qubix_protocol.arrays import Array

_UNDERSTATED: Final = 1.25
"""A trial may count so many times the signature's work: branches and loops may go by the data."""
_DEPENDENT: Final = 1e-2
"""Rounding does not move a row by this share of its size when others stand beside it."""

DEPENDS: Final = (
    "depends on those beside it: give each unit as an input of its own, stacked along one more axis in front"
)


class Runner:
    """A session with what a job says of its model. One lives as long as its worker works on the same model."""

    def __init__(self, session: Session, signature: Signature) -> None:
        self.session, self.signature = session, signature
        self.checked_together = False

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Outputs by wire names. Raises `BadInput` when the model gives other forms than its signature says."""
        parts = [self._batch(inputs, start, stop) for start, stop in _batches(self.signature, inputs)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.signature.outputs}

    def _batch(self, inputs: Arrays, start: int, stop: int) -> dict[str, Array]:
        found = self._outputs(inputs, start, stop)
        if stop - start > 1 and not self.checked_together:
            self._check_independent(found, self._outputs(inputs, stop - 1, stop))
            self.checked_together = True
        return found

    def _outputs(self, inputs: Arrays, start: int, stop: int) -> dict[str, Array]:
        made = self.session.run(feed_of(self.signature, inputs, start, stop))
        return {
            wire: _formed(made, tensor, stop - start, stacked=self.signature.mode == "stack")
            for wire, tensor in self.signature.outputs.items()
        }

    def _check_independent(self, together: Arrays, alone: Arrays) -> None:
        """Chunks, and the rows that a check picks, are other batches: rows must not know of each other."""
        for name, array in alone.items():
            if depends(array, together[name][-1:]):
                raise BadInput(f"output {self.signature.outputs[name].name} of a row {DEPENDS}")


def depends(alone: Array, beside: Array) -> bool:
    """Whether the same row comes out otherwise beside others, by more than rounding."""
    if alone.dtype.kind != "f":
        return False
    one, other = (np.nan_to_num(array.astype(np.float64)) for array in (alone, beside))
    return bool(np.abs(one - other).max(initial=0) > _DEPENDENT * np.abs(one).max(initial=0))


def open_runner(data: Array, signature: Signature, inputs: Arrays, session: Session) -> Runner:
    """After a trial of the first unit. Raises `BadInput` when the model is not as its signature says."""
    found = trial(data.tobytes(), feed_of(signature, inputs, 0, 1), together=signature.mode == "rows")
    hold_to(signature, found)
    return Runner(session, signature)


def hold_to(signature: Signature, found: Trial) -> None:
    for tensor in signature.outputs.values():
        _formed(found.outputs, tensor, 1, stacked=signature.mode == "stack")
    if found.work.flops > _UNDERSTATED * signature.flops:
        raise BadInput(f"a unit takes {found.work.flops:.3g} operations, the signature says {signature.flops:.3g}")
    if found.work.bytes_moved > _UNDERSTATED * max(signature.bytes_moved, 1e6):
        raise BadInput(
            f"a unit moves {found.work.bytes_moved:.3g} bytes, the signature says {signature.bytes_moved:.3g}"
        )


def inspected(data: Array, signature: Signature) -> bytes:
    """The model's bytes, when it may run and has the inputs and outputs of the signature. Raises `BadInput`."""
    plain = data.tobytes()
    facts = model.inspect(plain)
    for kind, ports, tensors in (
        ("input", facts.inputs, signature.inputs),
        ("output", facts.outputs, signature.outputs),
    ):
        has, says = {port.name: port.dtype for port in ports}, {t.name: t.dtype for t in tensors.values()}
        if has != says:
            raise BadInput(f"the model's {kind}s are {_listed(has)}, its signature says {_listed(says)}")
    return plain


def feed_of(signature: Signature, inputs: Arrays, start: int, stop: int) -> dict[str, Array]:
    """What units [start, stop) give to the model, by its own names."""
    feed: dict[str, Array] = {}
    for wire, tensor in signature.inputs.items():
        array = inputs[wire]
        if not tensor.whole:
            array = array[start] if signature.mode == "stack" else array[start:stop]
        feed[tensor.name] = np.require(array, requirements=["C", "A"])
    return feed


def rows_of(signature: Signature, inputs: Arrays, rows: Any) -> dict[str, Array]:
    """The smaller job of these units, in this order."""
    return {
        name: array if name == MODEL or signature.inputs[name].whole else array[rows] for name, array in inputs.items()
    }


def _batches(signature: Signature, inputs: Arrays) -> Iterator[tuple[int, int]]:
    units = next(len(inputs[name]) for name, tensor in signature.inputs.items() if not tensor.whole)
    for start in range(0, units, signature.batch):
        yield start, min(units, start + signature.batch)


def _formed(made: Mapping[str, Array], tensor: Tensor, units: int, *, stacked: bool) -> Array:
    found = made[tensor.name]
    array: Array = np.asarray(found)[None] if stacked else np.asarray(found)
    if (array.dtype.name, array.shape) != (tensor.dtype, (units, *tensor.shape)):
        raise BadInput(
            f"output {tensor.name} of {units} unit(s) is {array.dtype} {array.shape}, its signature says "
            f"{tensor.dtype} {(units, *tensor.shape)}"
        )
    return array


def _listed(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name:.80} {dtype}" for name, dtype in sorted(found.items()))
