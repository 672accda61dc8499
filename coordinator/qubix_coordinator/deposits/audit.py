# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, S608 - sentences stay whole, and what is put into the SQL are our own constants
"""What the ledger's audit asks of deposits and of what is on the chain (trust.md I8, I9, I11)."""

from qubix_coordinator.ledger.audit import Check, Outcome

READ_S_MAX = 600
"""Balances that were read longer ago say nothing about now."""

# One row: what is owed to users and for the market's own, what the chain said that we have, and what the two may differ
# by, because identities are read one after another. Development credit never was on a chain.
BACKING = f"""
    SELECT owed.qu AS owed_qu, wallet.qu AS wallet_qu, wallet.oldest, wallet.tick, coming.qu AS unseen_qu, moving.qu AS moving_qu,
           wallet.oldest IS NULL OR wallet.oldest < now() - interval '{READ_S_MAX} seconds' AS stale
    FROM (SELECT coalesce(sum(balance_qu), 0) - coalesce((SELECT sum(e.amount_qu) FROM transfer t
              JOIN entry e ON e.transfer_id = t.id AND e.amount_qu > 0 WHERE t.kind = 'development_credit'), 0) AS qu
            FROM ledger_balance WHERE kind <> 'world') owed,
         (SELECT coalesce(sum(balance_qu), 0) AS qu, min(checked_at) AS oldest, min(tick) AS tick
            FROM treasury WHERE role = 'hot' OR balance_qu > 0) wallet,
         -- credited, on identities that were last read before it came
         (SELECT coalesce(sum(d.amount_qu), 0) AS qu FROM deposit d JOIN deposit_identity i ON i.no = d.identity_no
            LEFT JOIN treasury t ON t.public_key = i.public_key
            WHERE d.state = 'credited' AND coalesce(t.tick, 0) < d.tick) coming,
         -- sweeps and withdrawals that may have run between two readings
         (SELECT coalesce((SELECT sum(amount_qu) FROM withdrawal WHERE state IN ('signed', 'broadcast')), 0)
              + coalesce((SELECT sum(s.amount_qu) FROM sweep s WHERE s.state = 'live'
                  OR (s.state = 'done' AND s.tick >= coalesce((SELECT tick FROM treasury WHERE role = 'hot'), 0))), 0) AS qu) moving
"""

CHECKS = (
    Check(
        "I8-deposits",
        "what came into the ledger from the chain is what was paid to its identities",
        """SELECT format('deposit %s of %s QU is %s; the ledger says %s QU', d.tx_id, d.amount_qu, d.state,
             coalesce(s.came, 0)) AS what
           FROM deposit d LEFT JOIN (SELECT e.transfer_id, sum(e.amount_qu) AS came FROM entry e
             JOIN ledger_account a ON a.id = e.account_id JOIN transfer t ON t.id = e.transfer_id
             WHERE t.kind = 'deposit' AND a.kind = 'user' GROUP BY e.transfer_id) s ON s.transfer_id = d.transfer_id
           WHERE coalesce(s.came, 0) <> CASE WHEN d.transfer_id IS NULL THEN 0 ELSE d.amount_qu END
           UNION ALL
           SELECT format('transfer %s credits a payment that was never seen (%s)', t.id, t.cause)
           FROM transfer t WHERE t.kind = 'deposit' AND EXISTS (SELECT FROM deposit)
             AND NOT EXISTS (SELECT FROM deposit d WHERE d.transfer_id = t.id)""",
    ),
    Check(
        "I8",
        "on the chain there is no less than is owed",
        f"""SELECT format('owed are %s QU, on the chain are %s (tick %s): %s QU are missing', b.owed_qu, b.wallet_qu, b.tick,
             b.owed_qu - b.unseen_qu - b.wallet_qu) AS what
           FROM ({BACKING}) b WHERE NOT b.stale AND b.owed_qu - b.unseen_qu - b.wallet_qu > b.moving_qu""",
    ),
    Check(
        "I8-read",
        "the chain was read lately enough to tell",
        f"""SELECT CASE WHEN b.oldest IS NULL
             THEN format('owed are %s QU; whether they are there is unknown: the chain has never been read', b.owed_qu)
             ELSE format('owed are %s QU; whether they are there is unknown: the chain has not been read since %s (tick %s)',
               b.owed_qu, to_char(b.oldest AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), b.tick) END AS what
           FROM ({BACKING}) b WHERE b.stale AND b.owed_qu > 0
           UNION ALL
           SELECT format('owed are %s QU, on the chain are %s (tick %s), and %s QU are on their way between two readings',
             b.owed_qu, b.wallet_qu, b.tick, b.moving_qu)
           FROM ({BACKING}) b WHERE NOT b.stale AND b.owed_qu - b.unseen_qu - b.wallet_qu BETWEEN 1 AND b.moving_qu""",
        outcome=Outcome.UNKNOWN,
    ),
    Check(
        "I9-sweeps",
        "at most one signed sweep of each deposit identity may run",
        """SELECT format('deposit identity %s has %s live sweeps', identity_no, count(*)) AS what
           FROM sweep WHERE state = 'live' GROUP BY identity_no HAVING count(*) > 1""",
    ),
    Check(
        "I11-deposits",
        "every deposit is of the ledger's network",
        """SELECT format('deposit %s is of the network %s', tx_id, network) AS what
           FROM deposit WHERE network <> current_network()""",
    ),
)
