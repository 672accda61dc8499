# SPDX-License-Identifier: Apache-2.0
"""Writes web/src/share/gpu/references.json: small jobs with what their outputs may be, by which a tab tests its card,
and what larger examples cost, by which it measures it: `make docs`. A test keeps it fresh.

Bounds come from the CPU back end and the kernels' own verifiers: whatever lies within them, a verifier accepts.
"""

import base64
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from qubix_kernels import get
from qubix_kernels.kernel import Arrays, Params, metas_of
from qubix_kernels.mandelbrot.discs import possible_iterations
from qubix_kernels.mandelbrot.window import Window, imaginary, real
from qubix_kernels.matmul.verify import GAIN
from qubix_kernels.montecarlo_option import verify as replays
from qubix_kernels.montecarlo_option.draws import PATHS_PER_COUNTER
from qubix_kernels.montecarlo_option.model import Option
from qubix_protocol.arrays import Array

FILE: Final = Path(__file__).resolve().parent.parent / "web" / "src" / "share" / "gpu" / "references.json"
SCALES: Final = (256, 512, 1024, 2048, 4096)
Bounds = Callable[[Arrays, Params, Arrays], dict[str, tuple[Array, Array]]]


def _matmul(inputs: Arrays, params: Params, outputs: Arrays) -> dict[str, tuple[Array, Array]]:
    """Any order of summing float32 stays within this of the exact sum, relative to |a| |b|."""
    a, b = (inputs[name].astype(np.float64) for name in "ab")
    exact, unit = a @ b, float(np.finfo(np.float32).eps) / 2
    allowed = GAIN * np.sqrt(a.shape[1]) * unit * (np.abs(a) @ np.abs(b))
    return {"c": _outwards(exact - allowed, exact + allowed)}


def _mandelbrot(inputs: Arrays, params: Params, outputs: Arrays) -> dict[str, tuple[Array, Array]]:
    window = Window.of(params)
    x, y = np.meshgrid(real(window), imaginary(window))
    fewest, most = possible_iterations(x.ravel(), y.ravel(), window.max_iterations)
    return {"iterations": (fewest.reshape(x.shape), most.reshape(x.shape))}


def _option(inputs: Arrays, params: Params, outputs: Arrays) -> dict[str, tuple[Array, Array]]:
    first, paths, seed = (int(params[name]) for name in ("first_lane", "paths_per_lane", "seed"))
    lane = (first + np.arange(int(params["lanes"]), dtype=np.int64)).astype(np.uint32)[:, None]
    counters = -(-paths // PATHS_PER_COUNTER)
    payoff, slack = (part[:, :paths] for part in replays._paths(Option.of(params), lane, counters, seed))
    terms = {"sums": (payoff, slack), "squares": (payoff**2, (2 * payoff + slack) * slack)}
    return {name: _within(*pair) for name, pair in terms.items()}


def _within(terms: Array, slack: Array) -> tuple[Array, Array]:
    exact = terms.sum(axis=1)
    allowed = slack.sum(axis=1) + replays.SUM_ROUNDINGS * replays.UNIT * exact
    return _outwards(exact - allowed, exact + allowed)


def _outwards(low: Array, high: Array) -> tuple[Array, Array]:
    """In float32, no narrower."""
    far = np.float32(np.inf)
    return np.nextafter(low.astype(np.float32), -far), np.nextafter(high.astype(np.float32), far)


def _matrices() -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {"a": rng.standard_normal((37, 53), np.float32), "b": rng.standard_normal((53, 22), np.float32)}


_MARKET: Final = {"spot": 100.0, "strike": 105.0, "rate": 0.03, "volatility": 0.25, "maturity": 1.5, "seed": 2**40 + 7}
JOBS: Final[tuple[tuple[str, dict[str, Array], dict[str, Any], Bounds], ...]] = (
    ("matmul", _matrices(), {}, _matmul),
    ("mandelbrot", {}, {"width": 37, "height": 21, "pixel": 3 / 37, "top": 0.9, "max_iterations": 300}, _mandelbrot),
    ("montecarlo_option", {}, {**_MARKET, "lanes": 5, "paths_per_lane": 515, "first_lane": 2**32 - 5}, _option),
    ("montecarlo_option", {}, {**_MARKET, "lanes": 3, "paths_per_lane": 7, "kind": "put"}, _option),
)


def document() -> dict[str, Any]:
    return {"references": [_reference(*job) for job in JOBS], "examples": _examples()}


def _reference(name: str, inputs: dict[str, Array], given: Mapping[str, Any], bounds: Bounds) -> dict[str, Any]:
    kernel = get(name)
    params = kernel.normalise(given)
    outputs = kernel.run("cpu", inputs, params)
    ranges = bounds(inputs, params, outputs)
    for output, (low, high) in ranges.items():
        assert np.all((low <= outputs[output]) & (outputs[output] <= high)), (
            f"{name} on the CPU is not within its bounds"
        )
    return {
        "kernel": name,
        "params": params,
        "units": kernel.units(metas_of(inputs), params),
        "inputs": {key: packed(array) for key, array in inputs.items()},
        "outputs": {key: {"low": packed(low), "high": packed(high)} for key, (low, high) in ranges.items()},
    }


def _examples() -> list[dict[str, Any]]:
    """What a node measures itself by. A tab draws the inputs, of which the cost knows no more than the form."""
    found = []
    for name in dict.fromkeys(job[0] for job in JOBS):
        for scale in SCALES:
            inputs, params = get(name).example(np.random.default_rng(scale), scale)
            metas = metas_of(inputs)
            units = get(name).units(metas, params)
            cost = get(name).cost(metas, params, units)
            forms = {key: {"dtype": meta.dtype, "shape": list(meta.shape)} for key, meta in metas.items()}
            found.append(
                {
                    "kernel": name,
                    "params": params,
                    "units": units,
                    "inputs": forms,
                    "flops": cost.flops,
                    "bytes_moved": cost.bytes_moved,
                }
            )
    return found


def packed(array: Array) -> dict[str, Any]:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": base64.b64encode(little.tobytes()).decode()}


def unpacked(told: Mapping[str, Any]) -> Array:
    flat = np.frombuffer(base64.b64decode(told["data"]), np.dtype(told["dtype"]).newbyteorder("<"))
    return flat.astype(told["dtype"]).reshape(told["shape"])


def main() -> int:
    FILE.write_text(json.dumps(document(), indent=1) + "\n")
    print(f"wrote {FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
