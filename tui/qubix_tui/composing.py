# SPDX-License-Identifier: Apache-2.0
"""From what a person typed to what the SDK is asked for, and a forecast in words. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from qubix.cli import shown
from qubix.cli.pairs import param_value
from qubix.errors import BadUsage
from qubix_kernels.kernel import KernelSpec, ParamSpec
from qubix_protocol.api import CandidateView, EstimateView, ObstacleView
from qubix_protocol.arrays import DTYPES, ArrayMeta
from qubix_protocol.messages import ParamValue
from qubix_protocol.units import QU_MAX
from qubix_tui.columns import cell

SIGNATURE: Final = "signature"
"""The SDK writes this parameter of a model itself."""
_FORM: Final = re.compile(r"([a-z]+[0-9]+)\s*\[\s*([0-9]+(?:\s*[,x×]\s*[0-9]+)*)\s*\]")
_LINK: Final = re.compile(r"https?://\S+", re.IGNORECASE)
Given = str | ArrayMeta


def is_link(text: str) -> bool:
    return _LINK.fullmatch(text) is not None


def path_of(given: Given) -> Path | ArrayMeta:
    """`~` is the home folder, as in a shell."""
    return Path(given).expanduser() if isinstance(given, str) else given


def specs_of(found: Sequence[Mapping[str, object]]) -> dict[str, KernelSpec]:
    """By name; what this version does not understand is left out."""
    specs: dict[str, KernelSpec] = {}
    for one in found:
        try:
            spec = msgspec.convert(one, KernelSpec)
        except msgspec.ValidationError:
            continue
        specs[spec.name] = spec
    return specs


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing to fill in. `name` is unique in the form."""

    name: str
    label: str
    value: str = ""
    hint: str = ""


def lines(spec: KernelSpec) -> list[Line]:
    """What the kernel wants to know: arrays first, then parameters."""
    found = []
    for array in spec.inputs:
        if spec.open and array.name == "model":
            found.append(Line(name="input-model", label="model: an .onnx file", hint="path or link"))
            continue
        form = f"{'/'.join(array.dtypes)}[{', '.join(array.dims)}]"
        found.append(Line(name=f"input-{array.name}", label=f"{array.name}: {form}", hint="path of a .npy, or a link"))
    if spec.open:
        label = "inputs: NAME=FILE with blanks between, by the model's own names"
        found.append(Line(name="more", label=label, hint="images=batch.npy"))
    found += [_param_line(param) for param in spec.params if not (spec.open and param.name == SIGNATURE)]
    return found


def _param_line(param: ParamSpec) -> Line:
    bounds = "/".join(param.choices)
    if param.low is not None and param.high is not None:
        bounds = f"{_bound(param.low)} to {_bound(param.high)}"
    text = f"{param.name}: {param.doc}" + (f" ({bounds})" if bounds else "")
    default = "" if param.default is None else str(param.default)
    return Line(name=f"param-{param.name}", label=text, value=default, hint=param.kind)


def _bound(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def inputs_of(spec: KernelSpec, values: Mapping[str, str]) -> dict[str, Given]:
    """Paths, links, or forms such as `float32[1024, 1024]`, which are enough for a forecast. Raises `BadUsage`."""
    found: dict[str, Given] = {}
    for array in spec.inputs:
        text = values.get(f"input-{array.name}", "").strip()
        if not text:
            raise BadUsage(f"input-{array.name}", f"{spec.name} needs the array {array.name!r}", "Give its .npy file.")
        found[array.name] = _given(f"input-{array.name}", text)
    for pair in values.get("more", "").split():
        name, equals, text = pair.partition("=")
        if not equals or not name or not text:
            raise BadUsage("more", f"inputs: {pair!r} is not of the form NAME=FILE", "Write images=batch.npy")
        found[name] = _given("more", text)
    return found


def _given(field: str, text: str) -> Given:
    form = _FORM.fullmatch(text)
    if form is None:
        return text
    if form[1] not in DTYPES:
        raise BadUsage(field, f"{form[1]!r} is no element type", f"There are: {', '.join(sorted(DTYPES))}.")
    return ArrayMeta(form[1], tuple(int(size) for size in re.split(r"[,x×]", form[2])))


def params_of(spec: KernelSpec, values: Mapping[str, str]) -> dict[str, ParamValue]:
    """Those that were given, in the type that they have. Raises `BadUsage`."""
    found: dict[str, ParamValue] = {}
    for param in spec.params:
        text = values.get(f"param-{param.name}", "").strip()
        if text:
            found[param.name] = _value(param, text)
    return found


def _value(param: ParamSpec, text: str) -> ParamValue:
    value: ParamValue = text if param.kind == "str" else param_value(text.replace(",", ""))
    fits = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}[param.kind]
    if not isinstance(value, fits) or (isinstance(value, bool) and param.kind != "bool"):
        kinds = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
        raise BadUsage(
            f"param-{param.name}", f"{param.name}: {text[:40]!r} is not {kinds[param.kind]}", param.doc + "."
        )
    return value


def cap_of(values: Mapping[str, str]) -> int:
    text = values.get("cap", "").replace(",", "").replace("_", "").replace(" ", "")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= QU_MAX:
        raise BadUsage("cap", f"the cap {values.get('cap', '')[:40]!r} is no amount", f"Give 1 to {QU_MAX:,} QU.")
    return int(text)


def deadline_of(values: Mapping[str, str]) -> int:
    """In seconds."""
    text = values.get("deadline", "").strip() or "60"
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_080:
        raise BadUsage("deadline", f"the deadline {text[:40]!r} is no number of minutes", "Give 1 to 10,080 minutes.")
    return int(text) * 60


def terms_of(values: Mapping[str, str]) -> dict[str, Any]:
    """What a forecast is to heed: of the cap, the query and the deadline whatever was typed."""
    cap = cap_of(values) if values.get("cap") and not values.get("rental") else None
    return {"cap_qu": cap, "where": values.get("where") or None, "deadline_s": deadline_of(values)}


# The forecast --------------------------------------------------------------------------------------------------------

_DEVICE_ROOM: Final = 42


def forecast(found: EstimateView, width: int, most: int = 8) -> list[str]:
    """A table of candidates in the order in which they would be asked, time and cost from low to high; then what keeps
    the others out."""
    room = max(12, width - _DEVICE_ROOM)
    lines = [f"{cell('device', room)} {'QU/h':>9} {'time':>13} {'cost in QU':>17}"] if found.candidates else []
    for one in found.candidates[:most]:
        lines += _candidate(one, room)
    if found.candidates and found.check_flops:
        lines.append(shown.check_paid(found.fee_bps))
    if max(found.fitting, len(found.candidates)) > most:
        lines.append(f"and {max(found.fitting, len(found.candidates)) - min(most, len(found.candidates)):,} more")
    if not found.candidates:
        lines.append("Nobody in the market can run it now.")
    lines += [f"{_count(one)}: {one.why}" for one in found.obstacles]
    if found.cap_least_qu is not None:
        lines.append(f"A cap of {shown.qu(found.cap_least_qu)} QU or more is enough for some device.")
    return lines


def _count(one: ObstacleView) -> str:
    return "1 device does not fit" if one.offers == 1 else f"{one.offers:,} devices do not fit"


def _candidate(one: CandidateView, room: int) -> list[str]:
    cost = f"{shown.qu(one.cost_low_qu)}–{shown.qu(one.cost_high_qu)}"
    time = f"{_s(one.time_low_ms)}–{_s(one.time_high_ms)} s"
    device = cell(shown.ran_on(one.model, one.backend), room)
    notes = [one.waiting, "" if one.affordable else "✗ above your balance"]
    said = "; ".join(note for note in notes if note)
    return [f"{device} {shown.qu(one.rate_qu_per_h):>9} {time:>13} {cost:>17}", *([f"  {said}"] if said else [])]


def _s(ms: int) -> str:
    return f"{ms / 1000:,.1f}" if ms < 100_000 else f"{ms / 1000:,.0f}"
