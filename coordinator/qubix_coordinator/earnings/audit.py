# SPDX-License-Identifier: Apache-2.0
"""What the ledger's audit asks of the parts that earnings are added up from (trust.md I3)."""

from typing import Final

from qubix_coordinator.ledger.audit import Check

_COLUMNS: Final = (
    "account_id, quarter, listing_id, earned_qu, fee_qu, awarded_qu, taken_back_qu, settlements,"
    " entry_first, entry_last"
)

CHECKS = (
    Check(
        "I3-earnings",
        "what an account earned in each quarter of an hour is the sum of its entries",
        f"""SELECT format('ledger account %s, device %s, the quarter from %s: earned %s QU in %s settlements stands in %s alone',
             account_id, listing_id, quarter, earned_qu, settlements, side) AS what
           FROM (
             (SELECT {_COLUMNS}, 'the parts' AS side FROM earnings_part
               EXCEPT SELECT {_COLUMNS}, 'the parts' FROM earnings_sums)
             UNION ALL
             (SELECT {_COLUMNS}, 'the entries' AS side FROM earnings_sums
               EXCEPT SELECT {_COLUMNS}, 'the entries' FROM earnings_part)
           ) AS apart""",  # noqa: S608, E501 - our own words
    ),
)
