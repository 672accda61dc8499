# SPDX-License-Identifier: Apache-2.0
"""From a model and the arrays that somebody has for it to the job's signature. Runs one or two units of the model."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from qubix_kernels.onnx import model
from qubix_kernels.onnx.model import Facts, Port
from qubix_kernels.onnx.refusal import Refused
from qubix_kernels.onnx.rows import DEPENDS, depends
from qubix_kernels.onnx.signature import FLOPS_MAX, Mode, Signature, Tensor, wire_names
from qubix_kernels.onnx.trial import Trial, trial
from qubix_kernels.onnx.work import Work
from qubix_protocol.arrays import Array

_LISTED: Final = "name the inputs as the model does"
_STACK: Final = "give the inputs stacked along one more axis in front: the model then runs for each by itself"


@dataclass(frozen=True)
class Description:
    """`names`: what the arrays were called → what the wire calls them."""

    signature: Signature
    names: dict[str, str]


def describe(data: bytes, arrays: Mapping[str, Array], whole: Collection[str] = ()) -> Description:
    """`arrays` by the model's names, or by the wire's; of a divided one, only the first two units are read.

    One axis more than the model has, in front, makes a stack of single inputs; otherwise axis 0 divides every input
    whose first axis the model leaves open (or has as 1), but those that are named in `whole`.
    Raises `Refused`, or MemoryError.
    """
    facts = model.inspect(data)
    wire = wire_names(port.name for port in facts.inputs)
    given = _by_own_name(facts, wire, arrays)
    passed = {port.name for port in facts.inputs if {port.name, wire[port.name]} & set(whole)}
    mode, divided = _divided(facts, given, passed)
    one = trial(data, _feed(given, divided, mode, 1), together=mode == "rows")
    inputs = {wire[port.name]: _input(port, given[port.name], port.name in divided) for port in facts.inputs}
    outputs = _outputs(facts, one, mode)
    found = _signature(mode, inputs, outputs, one.work)
    if mode == "rows" and all(len(given[name]) > 1 for name in divided):
        _check_pair(data, found, _feed(given, divided, mode, 2), one)
    return Description(found, {name: wire.get(name, name) for name in arrays})


def _by_own_name(facts: Facts, wire: Mapping[str, str], arrays: Mapping[str, Array]) -> dict[str, Array]:
    own = {wire[port.name]: port.name for port in facts.inputs} | {port.name: port.name for port in facts.inputs}
    listed = ", ".join(f"{port.name} {port.dtype} {_shape(port)}" for port in facts.inputs)
    for name in arrays:
        if name not in own:
            raise Refused("inputs", f"the model takes nothing named {name!r:.80}; it takes {listed}", _LISTED)
    found = {own[name]: array for name, array in arrays.items()}
    for port in facts.inputs:
        if port.name not in found:
            raise Refused("inputs", f"the model's input {port.name} is missing; it takes {listed}", _LISTED)
        if found[port.name].dtype.name != port.dtype:
            raise Refused(
                "inputs",
                f"input {port.name} is {found[port.name].dtype}, the model takes {port.dtype}",
                f"convert it, array.astype({port.dtype!r})",
            )
    return found


def _divided(facts: Facts, given: Mapping[str, Array], whole: Collection[str]) -> tuple[Mode, set[str]]:
    """How units are counted, and the inputs that have one part for each."""
    ports = [port for port in facts.inputs if port.dims is not None and port.name not in whole]
    stacked = {port.name for port in ports if given[port.name].ndim == len(port.dims or ()) + 1}
    if stacked:
        return "stack", _checked(facts, given, stacked, "stack")
    open_ended = {port.name for port in ports if port.dims and port.dims[0] is None}
    if open_ended:
        return "rows", _checked(facts, given, open_ended, "rows")
    single = {port.name for port in ports if port.dims and port.dims[0] == 1}
    many = {name for name in single if given[name].ndim and len(given[name]) > 1} or single
    if many:
        return "row", _checked(facts, given, many, "row")
    raise Refused("no_batch", "no input of the model is open along axis 0", _STACK)


def _checked(facts: Facts, given: Mapping[str, Array], divided: set[str], mode: Mode) -> set[str]:
    for port in facts.inputs:
        shape = given[port.name].shape
        one = shape if port.name not in divided else (shape[1:] if mode == "stack" else (1, *shape[1:]))
        if port.dims is not None and not _fits(one, port.dims):
            raise Refused(
                "inputs", f"input {port.name} has shape {shape}, the model takes {_shape(port)}", "reshape it"
            )
    sizes = {name: given[name].shape[:1] for name in sorted(divided)}
    if len(set(sizes.values())) > 1 or (0,) in sizes.values() or () in sizes.values():
        listed = ", ".join(f"{name} has {size[0] if size else 'no'}" for name, size in sizes.items())
        raise Refused(
            "inputs", f"the inputs have different numbers of units: {listed}", "name those that are no batch in whole="
        )
    return divided


def _fits(shape: tuple[int, ...], dims: tuple[int | None, ...]) -> bool:
    return len(shape) == len(dims) and all(want in (None, has) for has, want in zip(shape, dims, strict=True))


def _shape(port: Port) -> str:
    return (
        f"({', '.join('?' if size is None else str(size) for size in port.dims)})" if port.dims is not None else "any"
    )


def _feed(given: Mapping[str, Array], divided: Collection[str], mode: Mode, units: int) -> dict[str, Array]:
    first = {
        name: array if name not in divided else (array[0] if mode == "stack" else array[:units])
        for name, array in given.items()
    }
    return {name: np.require(array, requirements=["C", "A"]) for name, array in first.items()}


def _input(port: Port, array: Array, divided: bool) -> Tensor:
    shape = array.shape[1:] if divided else array.shape
    return Tensor(name=port.name, dtype=port.dtype, shape=shape, whole=not divided)


def _outputs(facts: Facts, one: Trial, mode: Mode) -> dict[str, Tensor]:
    wire, found = wire_names((port.name for port in facts.outputs), ()), {}
    for port in facts.outputs:
        shape = one.outputs[port.name].shape
        if mode != "stack" and shape[:1] != (1,):
            raise Refused(
                "no_batch", f"output {port.name} of one row has shape {shape}, so its axis 0 is not the batch", _STACK
            )
        unit = shape if mode == "stack" else shape[1:]
        found[wire[port.name]] = Tensor(name=port.name, dtype=port.dtype, shape=unit)
    return found


def _signature(mode: Mode, inputs: dict[str, Tensor], outputs: dict[str, Tensor], work: Work) -> Signature:
    if work.flops > FLOPS_MAX:
        raise Refused(
            "too_much_work",
            f"a unit takes {work.flops:.3g} operations; more than {FLOPS_MAX:.3g} cannot be checked in time",
            "give smaller units: shorter sequences, or smaller images",
        )
    if any(0 in tensor.shape for tensor in (*inputs.values(), *outputs.values())):
        raise Refused("inputs", "an input or output of the model is empty", "give at least one of everything")
    return Signature(mode=mode, inputs=inputs, outputs=outputs, **work._asdict())


def _check_pair(data: bytes, found: Signature, feed: Mapping[str, Array], one: Trial) -> None:
    """Two rows at once must give two rows, the first as it was alone: an axis that is open need not be the batch."""
    pair = trial(data, feed, together=True)
    for tensor in found.outputs.values():
        shape = pair.outputs[tensor.name].shape
        if shape != (2, *tensor.shape):
            raise Refused(
                "no_batch", f"output {tensor.name} of two rows has shape {shape}, not {(2, *tensor.shape)}", _STACK
            )
        if depends(one.outputs[tensor.name], pair.outputs[tensor.name][:1]):
            raise Refused("dependent_rows", f"output {tensor.name} of a row {DEPENDS}")
