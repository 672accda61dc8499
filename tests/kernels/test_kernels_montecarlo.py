# SPDX-License-Identifier: Apache-2.0
"""Option prices: the published words of Philox, prices known in closed form, and lanes that stand by themselves."""

import math
from typing import Any

import numpy as np
import pytest

from qubix_kernels import get
from qubix_kernels.montecarlo_option import philox
from qubix_kernels.montecarlo_option import verify as verify_module
from qubix_kernels.montecarlo_option.draws import of_lane_numbers, turned, uniform
from qubix_kernels.montecarlo_option.model import NORMAL_MAX, Option
from qubix_kernels.montecarlo_option.polynomials import COSINE, SINE
from qubix_kernels.montecarlo_option.verify import deviation

KERNEL = get("montecarlo_option")
ONES = 0xFFFFFFFF
# Random123, kat_vectors, "philox4x32 10": counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def terms(**changes: object) -> dict[str, Any]:
    plain = {"spot": 100.0, "strike": 105.0, "rate": 0.03, "volatility": 0.25, "maturity": 1.5, "lanes": 64}
    return KERNEL.normalise(plain | changes)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_words_are_the_published_ones(counter: Any, key: Any, words: Any) -> None:
    found = philox.words(tuple(np.array([word], np.uint32) for word in counter), key)  # type: ignore[arg-type]
    assert tuple(int(word[0]) for word in found) == words


@pytest.mark.parametrize("multiplier", philox.MULTIPLIERS)
def test_the_upper_word_comes_from_16_bit_halves_as_well(multiplier: int) -> None:
    x = np.random.default_rng(0).integers(0, 2**32, 10_000, dtype=np.uint32)
    x[:6] = (0, 1, ONES, 2**31, 0xFFFF, 0x10000)
    with np.errstate(over="raise"):
        high = philox.high_word(x, multiplier)
    np.testing.assert_array_equal(high, philox.product(x, multiplier)[0])
    assert [int(high[2])] == [ONES * multiplier >> 32]


def test_numbers_drawn_are_exact_in_float32_and_bounded() -> None:
    words = np.array([0, 511, 512, ONES, 2**31, 2**30 - 1], np.uint32)
    np.testing.assert_array_equal(uniform(words, np.float32).astype(np.float64), uniform(words, np.float64))
    assert math.sqrt(-2 * math.log(uniform(words, np.float64).min())) == pytest.approx(NORMAL_MAX)
    assert 0 < uniform(words, np.float32).min() < uniform(words, np.float32).max() < 1
    (quarter, narrow), (_, wide) = turned(words, np.float32), turned(words, np.float64)
    np.testing.assert_array_equal(narrow.astype(np.float64), wide)
    assert list(quarter) == [0, 0, 0, 3, 2, 0]
    assert np.abs(wide).max() < 0.5


def test_polynomials_are_cosine_and_sine_to_float32() -> None:
    x = np.linspace(-0.5, 0.5, 10_001)
    cosine = np.polynomial.polynomial.polyval(x * x, np.array(COSINE, np.float64))
    sine = x * np.polynomial.polynomial.polyval(x * x, np.array(SINE, np.float64))
    np.testing.assert_allclose(cosine, np.cos(x * math.pi / 2), rtol=0, atol=2.0**-24)
    np.testing.assert_allclose(sine, np.sin(x * math.pi / 2), rtol=0, atol=2.0**-24)


def test_normals_are_normal_and_independent() -> None:
    option = Option(start=1.0, spread=1.0, strike=0.0, sign=1.0)
    from qubix_kernels.montecarlo_option.cpu import payoffs

    normal = np.log(payoffs(option, of_lane_numbers(np.arange(64, dtype=np.uint32)[:, None], 1024, 7)))
    count = normal.size
    assert abs(normal.mean()) < 5 / math.sqrt(count)
    assert abs(normal.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs((normal**4).mean() - 3) < 5 * math.sqrt(96 / count)
    pairs = normal.reshape(64, -1, 4)
    correlations = np.corrcoef(pairs.reshape(-1, 4).T) - np.eye(4)
    assert np.abs(correlations).max() < 5 / math.sqrt(count / 4)
    assert abs(np.corrcoef(normal[:-1].ravel(), normal[1:].ravel())[0, 1]) < 5 / math.sqrt(count)


@pytest.mark.parametrize("kind", ["call", "put"])
@pytest.mark.parametrize("strike", [60.0, 105.0, 160.0])
def test_the_price_is_black_and_scholes(kind: str, strike: float) -> None:
    params = terms(kind=kind, strike=strike, lanes=128)
    outputs, paths = KERNEL.run("cpu", {}, params), 128 * 4096
    price = float(outputs["sums"].sum(dtype=np.float64)) / paths
    error = math.sqrt((float(outputs["squares"].sum(dtype=np.float64)) / paths - price**2) / paths)
    d1 = (math.log(100 / strike) + (0.03 + 0.25**2 / 2) * 1.5) / (0.25 * math.sqrt(1.5))
    d2, sign = d1 - 0.25 * math.sqrt(1.5), 1 if kind == "call" else -1

    def normal(x: float) -> float:
        return (1 + math.erf(x / math.sqrt(2))) / 2

    exact = sign * (100 * normal(sign * d1) - strike * math.exp(-0.03 * 1.5) * normal(sign * d2))
    assert Option.of(params).moments()[0] == pytest.approx(exact, rel=1e-12)
    assert abs(price - exact) < 5 * error
    assert error**2 * paths == pytest.approx(Option.of(params).moments()[1], rel=0.05)


def test_lanes_stand_by_themselves_and_seeds_and_lanes_differ() -> None:
    whole = KERNEL.run("cpu", {}, terms(lanes=9, paths_per_lane=101, first_lane=2**32 - 9, seed=2**40 + 3))["sums"]
    for lane in range(9):
        one = terms(lanes=1, paths_per_lane=101, first_lane=2**32 - 9 + lane, seed=2**40 + 3)
        assert KERNEL.run("cpu", {}, one)["sums"][0] == whole[lane]
    assert len(set(whole.tolist())) == 9
    other = KERNEL.run("cpu", {}, terms(lanes=9, paths_per_lane=101, first_lane=2**32 - 9, seed=3))["sums"]
    assert not np.any(other == whole)


def test_what_chance_may_do_is_wide_for_few_payoffs_and_a_z_score_for_many() -> None:
    assert deviation(1.0, 1e-4, 10, 1e-12) > 1
    assert deviation(3.0, 0.04, 10**8, 1e-12) == pytest.approx(7.53 * 0.2 / 1e4, rel=0.01)


def test_an_unlikely_lane_of_an_honest_result_is_replayed_and_not_blamed() -> None:
    """As if the consumer had searched for such a seed: here a lane is called unlikely that half of them are."""
    for lanes in (1, 3):
        for seed in range(40):
            params = terms(lanes=lanes, seed=seed)
            made = KERNEL.run("cpu", {}, params)
            given = Option.of(params), 0, 4096, seed, made["sums"], made["squares"], np.random.default_rng(0)
            assert verify_module.verify(*given).measured["suspects"] == 0
            verdict = verify_module.verify(*given, false_alarm=1.5)
            assert verdict.accepted, verdict
            if verdict.measured["suspects"] and verdict.measured["total_over_chance"] > 1:
                break
        else:
            pytest.fail("no seed was unlikely")


def test_a_lane_far_from_the_closed_form_is_caught_among_any_number() -> None:
    params = terms(lanes=4000, paths_per_lane=400)
    outputs = KERNEL.run("cpu", {}, params)
    assert KERNEL.verify({}, params, outputs, np.random.default_rng(0)).accepted
    for lanes, reason in ((1, "replay"), (32, "replay"), (33, "closed_form")):
        bad = {name: array.copy() for name, array in outputs.items()}
        bad["sums"][100 : 100 + lanes] *= np.float32(8)
        for seed in range(3):
            verdict = KERNEL.verify({}, params, bad, np.random.default_rng(seed))
            assert (verdict.accepted, verdict.reason) == (False, reason)


def test_a_small_error_of_every_lane_is_caught_by_their_total() -> None:
    """Lanes that are not replayed, each a little too high: no lane is unlikely, together they are impossible."""
    params = terms(lanes=4000, paths_per_lane=400)
    outputs = KERNEL.run("cpu", {}, params)
    whole, single = verify_module.beside_closed_form(Option.of(params), 400, outputs["sums"] * 1.05, 1e-12)
    assert single.max() <= 1 < whole
