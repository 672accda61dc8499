# SPDX-License-Identifier: Apache-2.0
"""A payment as text: one spelling, an exact amount, nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix_protocol.payment_uri import Payment, parse
from qubix_protocol.units import QU_MAX

IDENTITY = "BZBQFLLBNCXEMGLOBHUVFTLUPLVCPQUASSILFABOFFBCADQSSUPNWLZBQEXK"


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=60, max_size=60), st.integers(1, QU_MAX))
def test_it_reads_back_as_it_was_written(identity: str, amount_qu: int) -> None:
    payment = Payment(identity, amount_qu)
    assert parse(payment.uri()) == payment


@pytest.mark.parametrize("amount", ["0", "-1", "01", "1.0", "1e3", "", "1 ", "１", str(QU_MAX + 1), "9" * 40, "abc"])
def test_amounts_that_are_none_are_refused(amount: str) -> None:
    with pytest.raises(ValueError):
        parse(f"qubic:{IDENTITY}?amount={amount}")


@pytest.mark.parametrize("amount_qu", [0, -1, QU_MAX + 1])
def test_what_no_payment_is_is_not_written(amount_qu: int) -> None:
    with pytest.raises(ValueError):
        Payment(IDENTITY, amount_qu).uri()


@pytest.mark.parametrize(
    "text",
    [
        "",
        IDENTITY,
        f"bitcoin:{IDENTITY}?amount=1",
        f"qubic:{IDENTITY.lower()}?amount=1",
        f"qubic:{IDENTITY}",
        f"qubic:{IDENTITY}?amount=1&amount=2",
        f"qubic:{IDENTITY}?amount=1&memo=x",
        f"qubic:{IDENTITY}?amount=1\n",
        f"QUBIC:{IDENTITY}?amount=1",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)
