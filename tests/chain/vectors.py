# SPDX-License-Identifier: Apache-2.0
"""The reference vectors: made by one implementation, agreed on by five others; with what each wrongly accepts."""

import json
from pathlib import Path
from typing import Any, Final

from gmpy2 import mpz

from qubix_chain.fourq import Curve

VECTORS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors.json").read_text())
CURVES: Final = {"int": Curve(int), "gmpy2": Curve(mpz)}
SEED: Final[str] = VECTORS["keys"][0]["seed"]
OTHER_SEED: Final[str] = VECTORS["keys"][1]["seed"]


def names(group: list[dict[str, Any]], key: str) -> list[str]:
    return [f"{number}: {vector[key][:50]}" for number, vector in enumerate(group)]
