# SPDX-License-Identifier: Apache-2.0
"""Option prices: float32 in other ways, and prices that were not simulated, or not all of them."""

import math
from typing import Any

import numpy as np

from qubix_kernels.montecarlo_option.draws import of_lanes, turned, uniform
from qubix_kernels.montecarlo_option.model import Option
from tests.kernels.conformance.cheats import of_other_job
from tests.kernels.conformance.world import Array, Job, Outputs, Rng, Subject

F32 = np.float32


def job(lanes: int, paths: int, **changes: Any) -> Job:
    plain = {"spot": 100.0, "strike": 105.0, "rate": 0.03, "volatility": 0.25, "maturity": 1.5, "seed": 2**40 + 7}
    return Job.of("montecarlo_option", **plain | {"lanes": lanes, "paths_per_lane": paths} | changes)


def payoffs(asked: Job, dtype: Any = np.float64) -> Array:
    """With library functions in the given type, path after path."""
    params = asked.params
    option, counters = Option.of(params), -(-params["paths_per_lane"] // 4)
    paths = np.empty((params["lanes"], counters, 4), dtype)
    for pair, (first, second) in enumerate(of_lanes(params["first_lane"], params["lanes"], counters, params["seed"])):
        radius = np.sqrt(dtype(-2) * np.log(uniform(first, dtype)))
        quarter, rest = turned(second, dtype)
        angle = (quarter.astype(dtype) + rest) * dtype(math.pi / 2)
        paths[:, :, 2 * pair], paths[:, :, 2 * pair + 1] = radius * np.cos(angle), radius * np.sin(angle)
    normal = paths.reshape(len(paths), -1)[:, : params["paths_per_lane"]]
    price = dtype(option.start) * np.exp(dtype(option.spread) * normal)
    found: Array = np.maximum(dtype(option.sign) * (price - dtype(option.strike)), dtype(0))
    return found


def summed(found: Array) -> Outputs:
    wide = found.astype(np.float64)
    return {"sums": wide.sum(axis=1).astype(F32), "squares": (wide * wide).sum(axis=1).astype(F32)}


def library_functions(asked: Job) -> Outputs:
    """Cosine and sine of the whole angle instead of polynomials of the rest, all in float32."""
    return summed(payoffs(asked, F32))


def float32_sums(asked: Job) -> Outputs:
    """As 32 threads sum: each its own paths one after the other, then in a tree."""
    found = payoffs(asked).astype(F32)
    found = np.pad(found, ((0, 0), (0, -found.shape[1] % 32))).reshape(len(found), -1, 32)
    return {"sums": _tree(found), "squares": _tree(found * found)}


def _tree(parts: Array) -> Array:
    total = np.add.accumulate(parts, axis=1, dtype=F32)[:, -1]
    while total.shape[1] > 1:
        total = total[:, ::2] + total[:, 1::2]
    return total[:, 0]


def wrong(asked: Job, outputs: Outputs) -> str:
    exact = payoffs(asked)
    scale = max(asked.params["spot"], asked.params["strike"]) * exact.shape[1]
    for name, wanted in (("sums", exact.sum(axis=1)), ("squares", np.sqrt((exact**2).sum(axis=1) * exact.shape[1]))):
        found = outputs[name].astype(np.float64)
        found = found if name == "sums" else np.sqrt(found * exact.shape[1])
        if not np.all(np.abs(found - wanted) <= 1e-5 * (scale + wanted)):
            return f"{name}: {np.abs(found - wanted).max()} beside {scale}"
    return ""


def random(rng: Rng) -> Job:
    """Of any kind and scale: nearly certain, hopeless, tiny, huge."""
    spot = float(10 ** rng.uniform(-2, 5))
    maturity, spread = float(10 ** rng.uniform(-3, 1)), float(10 ** rng.uniform(-2, 0.4))
    return job(
        int(rng.integers(1, 9)),
        int(2 ** rng.uniform(0, 12)),
        spot=spot,
        strike=float(np.clip(spot * math.exp(rng.standard_normal() * (0.1 + spread)), 1e-3, 1e6)),
        rate=float(rng.uniform(-0.2, 0.3)),
        maturity=maturity,
        volatility=float(np.clip(spread / math.sqrt(maturity), 1e-3, 10)),
        seed=int(rng.integers(2**53)),
        first_lane=int(rng.integers(2**31)),
        kind=str(rng.choice(["call", "put"])),
    )


def trial(**changes: Any) -> Job:
    return job(192, 1024, **changes)


def half_precision(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return summed(payoffs(asked, np.float16))


def half_prices(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    """Everything in float64, only each price at the end rounded to float16."""
    strike = Option.of(asked.params).strike
    price = payoffs(_without_strike(asked)).astype(np.float16).astype(np.float64)
    return summed(np.maximum(price - strike, 0))


def _without_strike(asked: Job) -> Job:
    return Job(asked.kernel, {}, {**asked.params, "strike": 1e-30})


def fewer_paths(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    """Half of them, counted twice."""
    return summed(payoffs(asked)[:, ::2].repeat(2, axis=1))


def antithetic(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    """The other half of the paths are mirror images: even a better estimate, but not what was asked for."""
    params = {**asked.params, "paths_per_lane": asked.params["paths_per_lane"] // 2}
    normal = Job(asked.kernel, {}, {**params, "spot": 1.0, "strike": 1e-30, "volatility": 1.0, "maturity": 1.0})
    option, n = Option.of(asked.params), np.log(payoffs(normal)) + 0.5
    prices = [option.start * np.exp(sign * option.spread * n) for sign in (1, -1)]
    return summed(np.maximum(np.concatenate(prices, axis=1) - option.strike, 0))


def closed_form_and_noise(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    (mean, variance), paths = Option.of(asked.params).moments(), asked.params["paths_per_lane"]
    lanes = asked.params["lanes"]
    sums = paths * mean + math.sqrt(paths * variance) * rng.standard_normal(lanes)
    squares = paths * (variance + mean**2) * (1 + 0.1 * rng.standard_normal(lanes))
    return {"sums": sums.astype(F32), "squares": squares.astype(F32)}


def doubled_lanes(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    return {name: array[: len(array) // 2].repeat(2) for name, array in outputs.items()}


def not_discounted(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["sums"] *= F32(math.exp(0.03 * 1.5))
    return outputs


def a_thousandth_more(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["sums"] *= F32(1.001)
    return outputs


def squares_of_sums(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    outputs["squares"] = outputs["sums"] ** 2 / F32(asked.params["paths_per_lane"])
    return outputs


def one_thread_lost(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    """A 32nd of each lane's paths was forgotten, and the rest scaled up."""
    return summed(np.delete(payoffs(asked), np.s_[::32], axis=1) * (32 / 31))


def one_lane_replaced(asked: Job, outputs: Outputs, rng: Rng) -> Outputs:
    """By its neighbour: as likely a lane as any."""
    for array in outputs.values():
        array[3] = array[4]
    return outputs


SUBJECT = Subject(
    edges=[
        lambda: job(1, 1),
        lambda: job(3, 7, kind="put"),
        lambda: job(5, 131, first_lane=2**32 - 5),
        lambda: job(2, 61, spot=1e-3, strike=2e-3, volatility=2.0, kind="put"),
        lambda: job(2, 33, spot=1e6, strike=1e6, volatility=2.4, seed=2**53 - 1),
    ],
    random=random,
    wrong=wrong,
    elsewhere=[library_functions, float32_sums],
    trial=trial,
    complete=lambda: job(31, 500),
    cheats={
        "another seed": of_other_job(lambda: trial(seed=1)),
        "the next lanes": of_other_job(lambda: trial(first_lane=1)),
        "a put for a call": of_other_job(lambda: trial(kind="put")),
        "another strike": of_other_job(lambda: trial(strike=105.1)),
        "another rate": of_other_job(lambda: trial(rate=0.031)),
        "in float16": half_precision,
        "prices in float16": half_prices,
        "half the paths, twice": fewer_paths,
        "mirrored paths": antithetic,
        "closed form and noise": closed_form_and_noise,
        "each lane twice": doubled_lanes,
        "not discounted": not_discounted,
        "a thousandth more": a_thousandth_more,
        "squares made of sums": squares_of_sums,
        "a thread's paths forgotten": one_thread_lost,
    },
    small_cheats={"one lane of its neighbour": one_lane_replaced},
    exact=frozenset({"cpu", "cuda", "webgpu"}),
)
