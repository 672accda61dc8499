# SPDX-License-Identifier: Apache-2.0
"""What was measured is told with its unit; what is said in words is not."""

import pytest

from qubix_protocol.selftest import with_unit


@pytest.mark.parametrize(
    ("text", "unit", "told"),
    [
        ("12.5", "GiB", "12.5 GiB"),
        ("-0.2", "s", "-0.2 s"),
        ("12.0 up, 9.0 down", "MB/s", "12.0 up, 9.0 down MB/s"),
        ("right, in 3.2", "ms", "right, in 3.2 ms"),
        ("under 90", "°C", "under 90 °C"),
        ("3 of 5, matmul 88 GFLOP/s", "ms", "3 of 5, matmul 88 GFLOP/s"),
        ("2 of 2 gateways, the nearest at 7", "ms", "2 of 2 gateways, the nearest at 7 ms"),
        ("3 of 5", "ms", "3 of 5"),
        ("no answer from the store", "MB/s", "no answer from the store"),
        ("580.95", "", "580.95"),
    ],
)
def test_units(text: str, unit: str, told: str) -> None:
    assert with_unit(text, unit) == told
