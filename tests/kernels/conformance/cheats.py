# SPDX-License-Identifier: Apache-2.0
"""Cheats that any kernel's outputs can be spoilt with (trust.md C2). Those of a share of the units are large enough
that a check which draws a sample must find them; those of one element are for jobs that are checked as a whole."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from tests.kernels.conformance.world import Array, Cheat, Job, Outputs, Rng

_SHARE: Final = 3
"""One unit in so many is spoilt by a cheat on a chunk."""


def _each(change: Callable[[Array], Array]) -> Cheat:
    return lambda job, outputs, rng: {name: change(array) for name, array in outputs.items()}


def _chunk(job: Job) -> slice:
    start = job.units // _SHARE
    return slice(start, start + max(1, start))


def _zero_chunk(job: Job, outputs: Outputs, rng: Rng) -> Outputs:
    for array in outputs.values():
        array[_chunk(job)] = 0
    return outputs


def _repeated_chunk(job: Job, outputs: Outputs, rng: Rng) -> Outputs:
    part = _chunk(job)
    for array in outputs.values():
        array[part] = array[: part.stop - part.start].copy()
    return outputs


def _random_order(job: Job, outputs: Outputs, rng: Rng) -> Outputs:
    order = rng.permutation(job.units)
    return {name: array[order] for name, array in outputs.items()}


def _noise(job: Job, outputs: Outputs, rng: Rng) -> Outputs:
    """Numbers of the right size, and nothing else."""
    for name, array in outputs.items():
        outputs[name] = rng.permutation(array.ravel()).reshape(array.shape)
    return outputs


def _one_nan(job: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return _one_value(outputs, np.nan)


def _one_infinity(job: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return _one_value(outputs, np.inf)


def _one_value(outputs: Outputs, value: Any) -> Outputs:
    for array in outputs.values():
        if array.dtype.kind == "f":
            array.reshape(-1)[array.size // 2] = value
    return outputs


def _one_percent(job: Job, outputs: Outputs, rng: Rng) -> Outputs:
    """Of the root mean square, on one element; one more, where elements are whole numbers."""
    for array in outputs.values():
        rms = float(np.sqrt(np.mean(np.square(array.astype(np.float64)))))
        array.reshape(-1)[array.size // 3] += array.dtype.type(0.01 * rms if array.dtype.kind == "f" else 1)
    return outputs


def _one_zero_unit(job: Job, outputs: Outputs, rng: Rng) -> Outputs:
    for array in outputs.values():
        array[job.units // 2] = 0
    return outputs


def _two_units_swapped(job: Job, outputs: Outputs, rng: Rng) -> Outputs:
    for array in outputs.values():
        array[[0, job.units - 1]] = array[[job.units - 1, 0]]
    return outputs


def _half(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(array.dtype) if array.dtype.kind == "f" else array


def _huge(array: Array) -> Array:
    limits: Any = np.finfo(array.dtype) if array.dtype.kind == "f" else np.iinfo(array.dtype)
    return np.full_like(array, limits.max)


CHEATS: Final[dict[str, Cheat]] = {
    "zeros": _each(np.zeros_like),
    "ones": _each(np.ones_like),
    "the largest number": _each(_huge),
    "a skipped chunk": _zero_chunk,
    "a repeated chunk": _repeated_chunk,
    "off by one unit": _each(lambda array: np.roll(array, 1, axis=0)),
    "backwards": _each(lambda array: array[::-1].copy()),
    "units in random order": _random_order,
    "numbers in random order": _noise,
    "stored as float16": _each(_half),
    "negative": _each(lambda array: -array),
}
SMALL_CHEATS: Final[dict[str, Cheat]] = {
    "one NaN": _one_nan,
    "one infinity": _one_infinity,
    "1 % of rms on one element": _one_percent,
    "one unit of zeros": _one_zero_unit,
    "two units swapped": _two_units_swapped,
}


def of_other_job(other: Callable[[], Job]) -> Cheat:
    """An honest result, of a job with other inputs or parameters."""
    return lambda job, outputs, rng: other().run()
