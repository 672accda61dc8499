# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, S608 - sentences stay whole, and what is put into the SQL are our own constants
"""What the ledger's audit asks of withdrawals (trust.md I6, I7, I8, I9, I11)."""

from qubix_coordinator.ledger.audit import GRACE_MS, Check

CHECKS = (
    Check(
        "I6-withdrawal",
        "no withdrawal stays past its deadline",
        f"""SELECT format('withdrawal %s is %s, its deadline passed %s s ago', id, state, (:now_ms - due_ms) / 1000) AS what
           FROM withdrawal WHERE ended_ms IS NULL AND due_ms < :now_ms - {GRACE_MS}""",
    ),
    Check(
        "I7-withdrawal",
        "every withdrawal that was acknowledged was set aside, and is covered while it is open",
        """SELECT format('withdrawal %s of %s QU was never set aside', w.id, w.amount_qu) AS what
           FROM withdrawal w WHERE NOT EXISTS (SELECT FROM transfer t WHERE t.cause = 'withdraw:' || w.id)
           UNION ALL
           SELECT format('withdrawal %s is %s, of %s QU, and %s QU are set aside', w.id, w.state, w.amount_qu,
             coalesce(a.balance_qu, 0))
           FROM withdrawal w LEFT JOIN ledger_account a ON a.kind = 'withdrawal' AND a.owner = w.id
           WHERE coalesce(a.balance_qu, 0) <> CASE WHEN w.ended_ms IS NULL THEN w.amount_qu ELSE 0 END""",
    ),
    Check(
        "I8-withdrawals",
        "what left the ledger for the chain is what was paid out there",
        """SELECT format('withdrawal %s is %s, of %s QU; the ledger says that %s QU were sent', w.id, w.state, w.amount_qu,
             coalesce(s.sent, 0)) AS what
           FROM withdrawal w LEFT JOIN (SELECT t.cause, sum(e.amount_qu) AS sent FROM transfer t
             JOIN entry e ON e.transfer_id = t.id JOIN ledger_account a ON a.id = e.account_id
             WHERE t.kind = 'withdraw_sent' AND a.kind = 'world' GROUP BY t.cause) s ON s.cause = 'withdraw_sent:' || w.id
           WHERE coalesce(s.sent, 0) <> CASE WHEN w.state = 'confirmed' THEN w.amount_qu ELSE 0 END""",
    ),
    Check(
        "I9",
        "at most one signed transaction of each withdrawal may run or has run, and one is in flight for each identity",
        """SELECT format('withdrawal %s has %s transactions that may run or have run', withdrawal_id, count(*)) AS what
           FROM withdrawal_tx WHERE outcome IS NULL OR outcome = 'paid' GROUP BY withdrawal_id HAVING count(*) > 1
           UNION ALL
           SELECT format('identity %s has %s transactions in flight', encode(hot_key, 'hex'), count(*))
           FROM withdrawal_tx WHERE outcome IS NULL GROUP BY hot_key HAVING count(*) > 1""",
    ),
    Check(
        "I11-withdrawals",
        "every withdrawal is of the ledger's network",
        """SELECT format('withdrawal %s is of the network %s', id, network) AS what
           FROM withdrawal WHERE network <> current_network()""",
    ),
)
