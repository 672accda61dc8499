# SPDX-License-Identifier: Apache-2.0
"""CPU time of a key, a signature and a verification, on Python's integers and on GMP's (where installed)."""

import time
from collections.abc import Callable
from statistics import median

from bench.figures import Figure, under
from qubix_chain import crypto
from qubix_chain.fourq import Curve

_ROUNDS, _CALLS = 9, 40


def run() -> list[Figure]:
    figures = _figures("int", Curve(int))
    try:
        from gmpy2 import mpz
    except ImportError:
        return figures
    return figures + _figures("gmpy2", Curve(mpz))


def _figures(name: str, curve: Curve) -> list[Figure]:
    began = time.process_time()
    curve.times_generator(1)
    tables_ms = (time.process_time() - began) * 1e3
    subseed = crypto.subseed(crypto.new_seed())
    private_key = crypto.private_key(subseed)
    public_key = crypto.public_key(private_key, on=curve)
    digest = bytes(range(32))
    signature = crypto.sign(subseed, public_key, digest, on=curve)
    assert crypto.verify(public_key, digest, signature, on=curve)
    key_ms = _cpu_ms(lambda: crypto.public_key(private_key, on=curve))
    sign_ms = _cpu_ms(lambda: crypto.sign(subseed, public_key, digest, on=curve))
    verify_ms = _cpu_ms(lambda: crypto.verify(public_key, digest, signature, on=curve))
    return [
        under(f"tables, once ({name})", tables_ms, "ms CPU", aim=200),
        under(f"key ({name})", key_ms, "ms CPU", aim=0.6),
        under(f"sign ({name})", sign_ms, "ms CPU", aim=0.7),
        under(f"verify ({name})", verify_ms, "ms CPU", aim=6),
    ]


def _cpu_ms(work: Callable[[], object]) -> float:
    """Median over rounds, by the process's own clock: what else the machine does is not counted."""

    def once() -> float:
        began = time.process_time()
        for _ in range(_CALLS):
            work()
        return (time.process_time() - began) / _CALLS * 1e3

    return median(once() for _ in range(_ROUNDS))
