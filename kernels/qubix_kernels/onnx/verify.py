# SPDX-License-Identifier: Apache-2.0
"""A sample of the units run again on the CPU, and compared. notes.md has the tolerances and why.

A first comparison decides "right" alone. What lies beyond it is suspected, and decided by how far the model itself
carries rounding: the suspected units are run again with weights and inputs moved by a few units in their last place.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qubix_kernels.kernel import Arrays, BadInput, Verdict
from qubix_kernels.onnx import cpu, probes
from qubix_kernels.onnx.rows import rows_of
from qubix_kernels.onnx.signature import Signature
from qubix_protocol.arrays import Array

_RELATIVE_ULPS: Final = {"float16": 8.0, "float32": 512.0, "float64": 4096.0}
"""By how many units in the last place an element may be off; and an eighth of it, in those of the row's largest."""
_OF_SCALE: Final = 1 / 8
_GAIN: Final = 4.0
"""So many times what the probes moved a row by."""
_Rows = NDArray[np.float64]


def judge(inputs: Arrays, signature: Signature, outputs: Arrays, rng: np.random.Generator) -> Verdict:
    units = len(next(iter(outputs.values())))
    rows = np.sort(rng.choice(units, signature.sample(units), replace=False))
    small = rows_of(signature, inputs, rows)
    ours = cpu.run(small, signature)
    claimed = {name: outputs[name][rows] for name in signature.outputs}
    excess = _worst(signature, claimed, ours, [])
    found = int(np.count_nonzero(excess > 1))
    suspects = np.argsort(-excess, kind="stable")[: min(found, signature.decidable)]
    measured = {
        "sampled": float(len(rows)),
        "suspicious": float(found),
        "worst_over_tolerance": _finite(excess),
    }
    if not suspects.size:
        return Verdict(accepted=True, measured=measured)
    again = rows_of(signature, small, suspects)
    return _decided(signature, again, _taken(claimed, suspects), _taken(ours, suspects), rows[suspects], measured, rng)


def _decided(
    signature: Signature,
    inputs: Arrays,
    claimed: Arrays,
    ours: Arrays,
    rows: NDArray[Any],
    measured: Mapping[str, float],
    rng: np.random.Generator,
) -> Verdict:
    """The suspected units, with what the model makes of the slightest changes."""
    moved = list(probes.run(signature, inputs, rng))
    alone = _alone(signature, inputs, len(rows))
    if (_worst(signature, alone, ours, moved) > 1).any():
        raise BadInput("a row's output depends on the rows beside it: units of this model cannot be checked one by one")
    excess = _worst(signature, claimed, ours, moved)
    said = {**measured, "worst_over_decision": _finite(excess), "probes": float(len(moved))}
    wrong = np.flatnonzero(excess > 1)
    if not wrong.size:
        return Verdict(accepted=True, measured=said)
    detail = f"unit {rows[wrong[0]]} is not what the model gives: {_finite(excess):.3g} times the tolerance"
    return Verdict(accepted=False, reason="output", detail=detail, measured=said)


def _alone(signature: Signature, inputs: Arrays, units: int) -> dict[str, Array]:
    if signature.batch == 1:
        return cpu.run(inputs, signature)
    parts = [cpu.run(rows_of(signature, inputs, slice(i, i + 1)), signature) for i in range(units)]
    return {name: np.concatenate([part[name] for part in parts]) for name in signature.outputs}


def _worst(signature: Signature, claimed: Arrays, ours: Arrays, moved: Sequence[Arrays]) -> _Rows:
    """For each row, how many times its tolerance the worst element is off; infinite for what no rounding explains."""
    found = [excess(claimed[name], ours[name], [probe[name] for probe in moved]) for name in signature.outputs]
    worst: _Rows = np.max(found, axis=0)
    return worst


def excess(claimed: Array, ours: Array, moved: Sequence[Array]) -> _Rows:
    """For each row of one output, the largest error over its tolerance.

    Whole numbers, truth values, NaN and infinity must be equal, or be what some probe gives at that very place: a tie
    that rounding breaks.
    """
    same = (claimed == ours) | ((claimed != claimed) & (ours != ours))
    for probe in moved:
        same |= (claimed == probe) | ((claimed != claimed) & (probe != probe))
    if ours.dtype.kind != "f":
        return _by_row(np.where(same, 0.0, np.inf))
    exact, found = ours.astype(np.float64), claimed.astype(np.float64)
    both = np.isfinite(exact) & np.isfinite(found)
    off = np.abs(np.where(both, found - exact, 0.0))
    limit = _tolerance(exact, ours.dtype) + _GAIN * _spread(exact, moved)
    ratio = np.divide(off, limit, out=np.where(off > 0, np.inf, 0.0), where=limit > 0)
    return _by_row(np.where(both, ratio, np.where(same, 0.0, np.inf)))


def _tolerance(exact: _Rows, dtype: np.dtype[Any]) -> _Rows:
    """Of each element, from its own size and that of the largest of its row."""
    relative = _RELATIVE_ULPS[dtype.name] * float(np.finfo(dtype).eps)
    size = np.abs(np.where(np.isfinite(exact), exact, 0.0))
    return relative * (size + _OF_SCALE * _spanned(_by_row(size), exact))


def _spread(exact: _Rows, moved: Sequence[Array]) -> _Rows:
    """For each row, how far the probes moved any of its elements."""
    far = np.zeros(len(exact))
    for probe in moved:
        apart = np.abs(probe.astype(np.float64) - exact)
        far = np.maximum(far, _by_row(np.where(np.isfinite(apart), apart, 0.0)))
    return _spanned(far, exact)


def _by_row(found: NDArray[Any]) -> _Rows:
    """The largest of each row."""
    largest: _Rows = found.reshape(len(found), -1).max(axis=1, initial=0.0)
    return largest


def _spanned(rows: _Rows, like: NDArray[Any]) -> _Rows:
    return rows.reshape(-1, *[1] * (like.ndim - 1))


def _taken(arrays: Arrays, rows: NDArray[Any]) -> dict[str, Array]:
    return {name: array[rows] for name, array in arrays.items()}


def _finite(excess: _Rows) -> float:
    """A number that JSON can hold."""
    return float(min(excess.max(initial=0.0), 1e30))
