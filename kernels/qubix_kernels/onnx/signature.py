# SPDX-License-Identifier: Apache-2.0
"""What a job says of its model before anybody has the model: names, forms and the price of one unit.

It travels as the parameter `signature` (JSON). The consumer's SDK writes it from a trial of the model; it prices the
job and gives the outputs' forms. The worker makes the same trial and refuses a model that is not as described. Pure.
"""

import functools
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from qubix_kernels.kernel import Metas, Params, Problem
from qubix_kernels.onnx.work import batch_of
from qubix_protocol.arrays import DTYPES, ArrayMeta
from qubix_protocol.messages import Name
from qubix_protocol.units import ARRAY_BYTES_MAX, ARRAY_DIMS_MAX, INPUTS_MAX

MODEL: Final = "model"
PARAM: Final = "signature"
SIGNATURE_CHARS_MAX: Final = 16_000
_NAME_CHARS: Final = 48
FLOPS_MAX: Final = 2.5e11
"""Of one unit: a check runs several on a CPU, by default on one thread and within a minute."""
SAMPLE_FLOPS: Final = 1e12
DECISION_FLOPS: Final = 1e12
RERUNS: Final = 6
"""How often a suspected unit is run to decide: alone, unoptimised, and moved four times."""
SAMPLE_LEAST: Final = 4
SAMPLE_MIN: Final = 16
SAMPLE_SHARE: Final = 32

TensorName = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f\ud800-\udfff]+$", max_length=256)]
Size = Annotated[int, Meta(ge=1, le=2**31)]
Mode = Literal["rows", "row", "stack"]
"""`rows`: axis 0 of the model's tensors is the batch, of any size. `row`: the same, and the model takes one row at a
time. `stack`: the model has no such axis; what is given is a stack of its inputs."""


class Tensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One input or output under the model's own `name`. `shape` is of one unit, without the axis that counts units;
    a `whole` input has no such axis and goes to every unit as it is."""

    name: TensorName
    dtype: str
    shape: Annotated[tuple[Size, ...], Meta(max_length=ARRAY_DIMS_MAX)]
    whole: bool = False

    def meta(self, units: int) -> ArrayMeta:
        return ArrayMeta(self.dtype, self.shape if self.whole else (units, *self.shape))


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Keys are the names on the wire. `flops`, `bytes_moved` and `memory_bytes` are of one unit, by `trial`'s count."""

    mode: Mode
    inputs: Annotated[dict[Name, Tensor], Meta(min_length=1, max_length=INPUTS_MAX - 1)]
    outputs: Annotated[dict[Name, Tensor], Meta(min_length=1, max_length=INPUTS_MAX)]
    flops: Annotated[float, Meta(gt=0, le=FLOPS_MAX)]
    bytes_moved: Annotated[float, Meta(ge=0, le=1e15)]
    memory_bytes: Annotated[int, Meta(ge=0, le=2**42)]

    @property
    def batch(self) -> int:
        """How many units run together: always the same for a job, whoever runs it."""
        return batch_of(self.memory_bytes) if self.mode == "rows" else 1

    def sample(self, units: int) -> int:
        """How many of so many units a check runs again."""
        affordable = int(SAMPLE_FLOPS / self.flops)
        return min(units, max(SAMPLE_LEAST, min(max(SAMPLE_MIN, units // SAMPLE_SHARE), affordable)))

    @property
    def decidable(self) -> int:
        """How many suspected units a check can decide; of heavy models the worst alone."""
        return max(1, int(DECISION_FLOPS / (RERUNS * self.flops)))

    def units(self, metas: Metas) -> int:
        return next(metas[name].shape[0] for name, tensor in self.inputs.items() if not tensor.whole)

    def text(self) -> str:
        return msgspec.json.encode(self).decode()


def of(params: Params) -> Signature:
    """Of parameters that were checked."""
    return decode(str(params[PARAM]))


@functools.lru_cache(maxsize=64)
def decode(text: str) -> Signature:
    """Raises ValueError that says what is wrong."""
    if len(text) > SIGNATURE_CHARS_MAX:
        raise ValueError(f"has {len(text)} characters; at most {SIGNATURE_CHARS_MAX} are allowed")
    try:
        found = msgspec.json.decode(text, type=Signature)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    wrong = next(_wrong(found), None)
    if wrong:
        raise ValueError(wrong)
    return found


def _wrong(found: Signature) -> Iterator[str]:
    for kind, tensors in (("input", found.inputs), ("output", found.outputs)):
        if len({tensor.name for tensor in tensors.values()}) != len(tensors):
            yield f"names an {kind} of the model twice"
        for name, tensor in tensors.items():
            if tensor.dtype not in DTYPES:
                yield f"gives {kind} {name} a dtype that is not one of {', '.join(sorted(DTYPES))}"
            elif len(tensor.shape) + (not tensor.whole) > ARRAY_DIMS_MAX or tensor.meta(1).nbytes > ARRAY_BYTES_MAX:
                yield f"gives {kind} {name} a shape that is out of bounds"
    if {MODEL, PARAM} & set(found.inputs):
        yield f"calls an input {MODEL} or {PARAM}, which mean something else here"
    if all(tensor.whole for tensor in found.inputs.values()):
        yield "has no input that is divided into units"
    if any(tensor.whole for tensor in found.outputs.values()):
        yield "has an output that is not divided into units"


def input_problems(signature: Signature, metas: Metas) -> list[Problem]:
    """What is wrong with the arrays that are given to the model."""
    given, remedy = {name: metas[name] for name in metas if name != MODEL}, f"give {', '.join(signature.inputs)}"
    found = [Problem(f"inputs.{name}", "is unknown", remedy) for name in sorted(set(given) - set(signature.inputs))]
    units: int | None = None
    for name, tensor in signature.inputs.items():
        if name not in given:
            found.append(Problem(f"inputs.{name}", "is missing", f"give it: {tensor.dtype}, {_form(tensor)}"))
            continue
        meta = given[name]
        if units is None and not tensor.whole and meta.shape:
            units = meta.shape[0]
        found += _input_problem(name, tensor, meta, units)
    return found


def _input_problem(name: str, tensor: Tensor, meta: ArrayMeta, units: int | None) -> Iterator[Problem]:
    field = f"inputs.{name}"
    if meta.dtype != tensor.dtype:
        yield Problem(f"{field}.dtype", f"is {meta.dtype}", f"convert it to {tensor.dtype}")
    if meta.shape != tensor.meta(units or 1).shape:
        yield Problem(
            f"{field}.shape", f"is {_shown(meta.shape)}", f"it must be {_form(tensor)}, n the same everywhere"
        )
    elif not 1 <= (units or 1) <= ARRAY_BYTES_MAX:
        yield Problem(f"{field}.shape", f"is {_shown(meta.shape)}", "give at least one unit")
    elif meta.nbytes > ARRAY_BYTES_MAX:
        yield Problem(f"{field}.shape", f"is {meta.nbytes} bytes", f"at most {ARRAY_BYTES_MAX} are allowed")


def _form(tensor: Tensor) -> str:
    sizes = [*([] if tensor.whole else ["n"]), *map(str, tensor.shape)]
    return f"of shape ({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _shown(shape: tuple[int, ...]) -> str:
    """Python refuses to print integers of more than 4,300 digits."""
    return f"{shape}" if all(abs(size) < 2**64 for size in shape) else "far out of range"


def wire_names(own: Iterable[str], taken: Iterable[str] = (MODEL, PARAM)) -> dict[str, str]:
    """The model's names → names that the wire carries: lower case, digits and `_`, no two alike."""
    made: dict[str, str] = {}
    used = set(taken)
    for name in own:
        plain = re.sub(r"[^a-z0-9_]", "_", name.lower())[:_NAME_CHARS]
        base = plain if plain[:1].isalpha() else f"t_{plain}"
        found = next(one for one in itertools.chain([base], _numbered(base)) if one not in used)
        used.add(found)
        made[name] = found
    return made


def _numbered(base: str) -> Iterator[str]:
    return (f"{base}_{i}" for i in itertools.count(2))


def output_metas(signature: Signature, metas: Metas) -> dict[str, ArrayMeta]:
    units = signature.units(metas)
    return {name: tensor.meta(units) for name, tensor in signature.outputs.items()}


def bytes_of(tensors: Mapping[str, Tensor], units: int) -> int:
    return sum(math.prod(t.meta(units).shape) * t.meta(1).nbytes // max(1, t.meta(1).size) for t in tensors.values())
