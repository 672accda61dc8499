# SPDX-License-Identifier: Apache-2.0
"""What every kernel is: a specification, a run on some back end, and a check far cheaper than the run.

A job's work is divided into *units*, the rows of every output (axis 0). A chunk of units is itself a smaller job of the
same kernel (`subproblem`), so running and checking a chunk need no code of their own. Everything here but `run` is
pure, and imports NumPy alone.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from qubix_protocol.arrays import DTYPES, Array, ArrayMeta
from qubix_protocol.units import ARRAY_BYTES_MAX

ParamValue = bool | int | float | str
Params = Mapping[str, ParamValue]
Metas = Mapping[str, ArrayMeta]
Arrays = Mapping[str, Array]


class UnknownKernel(LookupError):
    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no kernel is called {name!r}; there are: {', '.join(known)}")
        self.name, self.known = name, known


class BadInput(ValueError):
    """The data of a job cannot be computed on, though its form was right; the message says why."""


class NotInstalled(LookupError):
    """What this back end needs of other packages is not on this machine; the message says what to install."""


class ParamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter. Without a default it is required; bounds are inclusive."""

    name: str
    kind: Literal["int", "float", "bool", "str"]
    doc: str
    default: ParamValue | None = None
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


class ArraySpec(msgspec.Struct, frozen=True, kw_only=True):
    """One array. `dims` are names of sizes; the same name in two arrays is the same size. `dtypes` of an output may be
    `("=a",)`: that of input `a`. Sizes lie between 1 and `size_max`."""

    name: str
    dims: tuple[str, ...]
    dtypes: tuple[str, ...]
    doc: str
    size_max: int = 2**24


class KernelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`version` rises when results may differ; a job keeps the version it was submitted for. An `open` kernel has
    further inputs, and outputs, that each job names for itself.

    A kernel whose `verifier` is False has no cheap check: its results are paid by the consumer's word, or when an
    acceptance window ends. Two honest results of it differ by at most `absolute + relative × |value|`, element by
    element (whole numbers too).
    """

    name: str
    version: int
    title: str
    doc: str
    params: tuple[ParamSpec, ...] = ()
    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    backends: tuple[str, ...]
    open: bool = False
    verifier: bool = True
    relative: float = 0.0
    absolute: float = 0.0


class Problem(msgspec.Struct, frozen=True):
    """`field` is a path such as `inputs.a.dtype` or `params.k`."""

    field: str
    problem: str
    remedy: str


class Cost(msgspec.Struct, frozen=True):
    """Floating-point operations, bytes read and written, and the memory that is needed at once."""

    flops: float
    bytes_moved: float
    memory_bytes: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` is constant ("ok", "shape", "residual", …); `measured` holds what the decision was made on."""

    accepted: bool
    reason: str = "ok"
    detail: str = ""
    measured: dict[str, float] = {}


class Kernel(ABC):
    """A kernel is a singleton without state; `spec` says what it takes and gives.

    It may take no arrays at all: then its parameters say where in the whole a chunk lies.
    """

    spec: KernelSpec

    def __init_subclass__(cls) -> None:
        """A kernel that says it has a verifier must bring one: else whatever has the right form would be paid."""
        super().__init_subclass__()
        if cls.spec.verifier == (cls.verify is Kernel.verify):
            said, is_there = ("a", "brings none") if cls.spec.verifier else ("no", "brings one")
            raise TypeError(f"{cls.__name__}: its specification says that it has {said} verifier, and it {is_there}")

    # What a back end does -------------------------------------------------------------------------------------------

    @abstractmethod
    def run(self, backend: str, inputs: Arrays, params: Params) -> dict[str, Array]:
        """Compute the outputs. Raises `BadInput`, or `LookupError` for a back end that this kernel lacks."""

    def warm_up(self, backend: str, metas: Metas, params: Params) -> None:  # noqa: B027  most have nothing to do
        """What a worker does once before it runs chunks of a job, such as compiling for its card: start-up is not
        paid (B4). Nothing, by default. Raises `LookupError` where there is no device."""

    def beyond(self, backend: str, metas: Metas, params: Params) -> str:
        """Why this back end cannot do this job, which has its right form, such as for want of a type; "" when it can.
        `run` refuses the same with `BadInput`; matching asks first, so that it never comes to that."""
        return ""

    def runs_on(self, metas: Metas, params: Params) -> tuple[str, ...]:
        """The back ends that can do this job."""
        return tuple(backend for backend in self.spec.backends if not self.beyond(backend, metas, params))

    def verify(self, inputs: Arrays, params: Params, outputs: Arrays, rng: np.random.Generator) -> Verdict:
        """Judge outputs that somebody else made; never raises, whatever the outputs are.

        `rng` must have been seeded after the outputs were committed to (trust C1). Every kernel with a verifier has its
        own; of one without, only the outputs' form is judged.
        """
        problems = self.check_outputs(metas_of(inputs), params, outputs)
        if problems:
            return Verdict(accepted=False, reason="shape", detail=f"{problems[0].field} {problems[0].problem}")
        return Verdict(accepted=True, reason="form")

    def compare(self, outputs: Arrays, others: Arrays) -> Verdict:
        """Whether two results of the same units, both of the right form, are one: by the specification's tolerance."""
        for spec in self.spec.outputs:
            off = _apart(outputs[spec.name], others[spec.name], self.spec.relative, self.spec.absolute)
            if off:
                detail = (
                    f"{off:,} of {outputs[spec.name].size:,} elements of {spec.name} are not those of the other run"
                )
                return Verdict(accepted=False, reason="differs", detail=detail, measured={"apart": float(off)})
        return Verdict(accepted=True, reason="same")

    # Sizes and prices, from forms alone -----------------------------------------------------------------------------

    @abstractmethod
    def cost(self, metas: Metas, params: Params, units: int) -> Cost:
        """Of running this many units."""

    @abstractmethod
    def check_cost(self, metas: Metas, params: Params, units: int) -> Cost:
        """Of verifying this many units."""

    @abstractmethod
    def output_metas(self, metas: Metas, params: Params) -> dict[str, ArrayMeta]: ...

    @abstractmethod
    def subproblem(self, inputs: Arrays, params: Params, start: int, stop: int) -> tuple[dict[str, Array], Params]:
        """The smaller job whose outputs are units [start, stop) of this one's; a chunk of a chunk is a chunk. Views of
        the inputs, no copies."""

    @abstractmethod
    def example(self, rng: np.random.Generator, scale: int) -> tuple[dict[str, Array], dict[str, ParamValue]]:
        """An honest instance of about this size: for measuring a machine, and for tests."""

    def problems_of(self, metas: Metas, params: Params) -> tuple[Problem, ...]:
        """What this kernel asks beyond its specification, such as k ≤ rows; called when the rest is right."""
        return ()

    def units(self, metas: Metas, params: Params) -> int:
        return next(iter(self.output_metas(metas, params).values())).shape[0]

    def check(self, metas: Metas, params: Mapping[str, object]) -> tuple[Problem, ...]:
        """Everything wrong with a job's form, before any data is looked at; empty when it can run."""
        found = (*_check_params(self.spec, params), *self.check_inputs(metas, params))
        if found:
            return found
        normal = self.normalise(params)
        return self.problems_of(metas, normal) or _check_outputs_fit(self.output_metas(metas, normal))

    def check_inputs(self, metas: Metas, params: Mapping[str, object]) -> Sequence[Problem]:
        """What is wrong with the arrays' forms; `params` may be anything."""
        return array_problems(self.spec.name, self.spec.inputs, metas)

    def normalise(self, params: Mapping[str, object]) -> dict[str, ParamValue]:
        """Every parameter with its default filled in and its kind made exact (1 for a float becomes 1.0)."""
        made: dict[str, ParamValue] = {}
        for spec in self.spec.params:
            value = params.get(spec.name, spec.default)
            assert isinstance(value, bool | int | float | str), f"params.{spec.name} was not checked"
            made[spec.name] = float(value) if spec.kind == "float" else value
        return made

    def check_outputs(self, metas: Metas, params: Params, outputs: object) -> tuple[Problem, ...]:
        """Whether outputs, which may be anything, have exactly the names, dtypes and shapes that they must have."""
        wanted = self.output_metas(metas, params)
        if not isinstance(outputs, Mapping) or set(outputs) != set(wanted):
            return (Problem("outputs", "has other names", f"give exactly {sorted(wanted)}"),)
        return tuple(
            Problem(f"outputs.{name}", f"is {_form(outputs[name])}", f"it must be {meta.dtype} of shape {meta.shape}")
            for name, meta in wanted.items()
            if not (isinstance(outputs[name], np.ndarray) and _form(outputs[name]) == (meta.dtype, meta.shape))
        )

    def join(self, parts: Sequence[Arrays]) -> dict[str, Array]:
        """The outputs of consecutive chunks as one. Raises KeyError or ValueError when they do not fit together."""
        if len(parts) == 1:
            return dict(parts[0])
        return {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in self.spec.outputs}

    def own_names(self, params: Params) -> dict[str, str]:
        """Outputs that are called something else by those who submitted the job."""
        return {}


def metas_of(arrays: Arrays) -> dict[str, ArrayMeta]:
    return {name: ArrayMeta.of(array) for name, array in arrays.items()}


def _apart(mine: Array, other: Array, relative: float, absolute: float) -> int:
    """How many elements differ by more than they may. A NaN is equal to a NaN alone."""
    if mine.dtype != other.dtype or mine.shape != other.shape:
        return max(mine.size, 1)
    if mine.dtype.kind in "iub" and relative == absolute == 0.0:
        return int(np.count_nonzero(mine != other))  # float64 would make large neighbours equal
    with np.errstate(all="ignore"):
        near = np.isclose(mine.astype(np.float64), other.astype(np.float64), relative, absolute, equal_nan=True)
    return int(np.count_nonzero(~near))


def no_backend(spec: KernelSpec, backend: str) -> LookupError:
    return LookupError(f"{spec.name} has no back end {backend!r}; there are: {', '.join(spec.backends)}")


def _form(array: object) -> tuple[str, tuple[int, ...]]:
    return (array.dtype.name, array.shape) if isinstance(array, np.ndarray) else (type(array).__name__, ())


def _shown(value: float) -> str:
    """Python refuses to print integers of more than 4,300 digits."""
    return f"{value}" if not abs(value) >= 2**64 or isinstance(value, float) else "far out of range"


def _check_params(spec: KernelSpec, params: Mapping[str, object]) -> list[Problem]:
    known = {param.name for param in spec.params}
    remedy = f"{spec.name} takes {', '.join(sorted(known))}" if known else f"{spec.name} takes no parameters"
    found = [Problem(f"params.{name}", "is unknown", remedy) for name in sorted(set(params) - known)]
    for param in spec.params:
        if param.name in params:
            found += _check_param(param, params[param.name])
        elif param.default is None:
            found.append(Problem(f"params.{param.name}", "is missing", f"give it: {param.doc}"))
    return found


_KINDS: Final = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def _check_param(spec: ParamSpec, value: object) -> list[Problem]:
    field = f"params.{spec.name}"
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
    if not isinstance(value, kinds[spec.kind]) or (isinstance(value, bool) and spec.kind != "bool"):
        given = repr(value)[:64] if isinstance(value, str | bool | float) else f"of type {type(value).__name__}"
        return [Problem(field, f"is {given}", f"give {_KINDS[spec.kind]}: {spec.doc}")]
    if spec.choices and value not in spec.choices:
        return [Problem(field, f"is {value!r:.64}", f"choose one of {', '.join(spec.choices)}")]
    if isinstance(value, int | float) and not isinstance(value, bool):
        low = -math.inf if spec.low is None else spec.low
        high = math.inf if spec.high is None else spec.high
        # Comparing first: an integer may be too large to be made a float.
        if not (low <= value <= high and math.isfinite(value)):
            return [Problem(field, f"is {_shown(value)}", f"it must be a finite number from {low:g} to {high:g}")]
    return []


def array_problems(kernel: str, specs: Sequence[ArraySpec], metas: Metas) -> list[Problem]:
    """What is wrong with arrays of which exactly these are wanted."""
    known = {array.name for array in specs}
    remedy = f"{kernel} takes {', '.join(array.name for array in specs) or 'no arrays'}"
    found = [Problem(f"inputs.{name}", "is unknown", remedy) for name in sorted(set(metas) - known)]
    sizes: dict[str, tuple[int, str]] = {}
    for array in specs:
        if array.name not in metas:
            found.append(Problem(f"inputs.{array.name}", "is missing", f"give it: {array.doc}"))
        else:
            found += _check_input(array, metas[array.name], sizes)
    return found


def _check_input(spec: ArraySpec, meta: ArrayMeta, sizes: dict[str, tuple[int, str]]) -> list[Problem]:
    field = f"inputs.{spec.name}"
    found: list[Problem] = []
    if meta.dtype not in spec.dtypes:
        found.append(Problem(f"{field}.dtype", f"is {meta.dtype}", f"convert it to one of {', '.join(spec.dtypes)}"))
    if len(meta.shape) != len(spec.dims):
        wanted = f"it must have {len(spec.dims)} axes: ({', '.join(spec.dims)})"
        return [*found, Problem(f"{field}.shape", f"is {meta.shape}", wanted)]
    for name, size in zip(spec.dims, meta.shape, strict=True):
        if not 1 <= size <= spec.size_max:
            found.append(
                Problem(f"{field}.shape", f"has {name} = {_shown(size)}", f"it must be from 1 to {spec.size_max}")
            )
        before, where = sizes.setdefault(name, (size, spec.name))
        if before != size:
            found.append(
                Problem(
                    f"{field}.shape",
                    f"has {name} = {_shown(size)}",
                    f"{where} has {name} = {_shown(before)}: make them equal",
                )
            )
    if not found and meta.nbytes > ARRAY_BYTES_MAX:
        found.append(Problem(f"{field}.shape", f"is {meta.nbytes} bytes", f"at most {ARRAY_BYTES_MAX} are allowed"))
    return found


def _check_outputs_fit(metas: Metas) -> tuple[Problem, ...]:
    total = sum(meta.nbytes for meta in metas.values())
    assert all(meta.dtype in DTYPES for meta in metas.values())
    if total <= ARRAY_BYTES_MAX:
        return ()
    return (Problem("inputs", f"would give {total} bytes of output", f"at most {ARRAY_BYTES_MAX}: split the job"),)
