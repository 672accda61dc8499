# SPDX-License-Identifier: Apache-2.0
"""The option, and what is known of its price without simulation (Black and Scholes, 1973)."""

import math
from dataclasses import dataclass
from typing import Final

from qubix_kernels.kernel import Params

_BITS: Final = 23
UNIFORM_STEP: Final = 2.0**-_BITS
NORMAL_MAX: Final = math.sqrt(-2 * math.log(UNIFORM_STEP / 2))
"""5.77: no number drawn is farther from zero."""


@dataclass(frozen=True, slots=True)
class Option:
    """A path's discounted payoff is max(sign · (start · exp(spread · n) - strike), 0) for a standard normal n."""

    start: float
    spread: float
    strike: float
    sign: float

    @classmethod
    def of(cls, params: Params) -> "Option":
        years, spread = float(params["maturity"]), float(params["volatility"]) * math.sqrt(float(params["maturity"]))
        return cls(
            start=float(params["spot"]) * math.exp(-spread * spread / 2),
            spread=spread,
            strike=float(params["strike"]) * math.exp(-float(params["rate"]) * years),
            sign=1.0 if params["kind"] == "call" else -1.0,
        )

    @property
    def payoff_max(self) -> float:
        """No path gives more: the numbers drawn are bounded."""
        highest = self.start * math.exp(self.spread * NORMAL_MAX)
        return max(highest - self.strike, 0.0) if self.sign > 0 else self.strike

    def moments(self) -> tuple[float, float]:
        """Mean (the price) and variance of the payoff."""
        spot = self.start * math.exp(self.spread * self.spread / 2)
        d2 = math.log(self.start / self.strike) / self.spread
        first, zeroth = _normal(self.sign * (d2 + self.spread)), _normal(self.sign * d2)
        second = _normal(self.sign * (d2 + 2 * self.spread))
        price = self.sign * (spot * first - self.strike * zeroth)
        square = spot * spot * math.exp(self.spread * self.spread) * second
        return max(price, 0.0), max(square - 2 * spot * self.strike * first + self.strike**2 * zeroth - price**2, 0.0)


def _normal(x: float) -> float:
    """The standard normal distribution function."""
    return math.erfc(-x / math.sqrt(2)) / 2
