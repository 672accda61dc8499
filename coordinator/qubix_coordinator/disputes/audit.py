# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, S608 - sentences stay whole, and what is put into the SQL are our own constants
"""What the ledger's audit asks of disputes (trust.md I4 to I6, M7)."""

from qubix_coordinator.ledger.audit import GRACE_MS, Check

CHECKS = (
    Check(
        "I4-bond",
        "a dispute's bond is what was staked, less what its re-runs cost, and nothing once it is over",
        """SELECT format('dispute %s (%s): its bond has %s QU left', d.id, d.state, coalesce(b.balance_qu, 0)) AS what
           FROM dispute d LEFT JOIN ledger_balance b ON b.kind = 'bond' AND b.owner = d.id
           WHERE d.rerun_settled AND coalesce(b.balance_qu, 0) <> CASE d.state WHEN 'resolved' THEN 0
             ELSE d.bond_qu + d.answer_bond_qu - d.rerun_cost_qu END
           UNION ALL
           SELECT format('a bond of %s QU belongs to no dispute (%s)', b.balance_qu, b.owner)
           FROM ledger_balance b WHERE b.kind = 'bond' AND b.balance_qu <> 0
             AND NOT EXISTS (SELECT FROM dispute d WHERE d.id = b.owner)""",
    ),
    Check(
        "I5-award",
        "what a dispute awarded after settlement was refunded once, from where it says",
        """SELECT format('dispute %s: %s QU from provider, fees and fund; the ledger refunded %s', d.id,
             d.from_provider_qu + d.from_fees_qu + d.from_fund_qu, coalesce(r.qu, 0)) AS what
           FROM dispute d LEFT JOIN (SELECT split_part(t.cause, ':', 2) AS id, sum(e.amount_qu) AS qu
             FROM transfer t JOIN entry e ON e.transfer_id = t.id WHERE t.kind = 'refund' AND e.amount_qu > 0 GROUP BY 1) r
             ON r.id = d.id::text
           WHERE d.from_provider_qu + d.from_fees_qu + d.from_fund_qu <> coalesce(r.qu, 0)""",
    ),
    Check(
        "I6-dispute",
        "no dispute stays past its deadline",
        f"""SELECT format('dispute %s is %s, its deadline passed %s s ago', id, state, (:now_ms - due_ms) / 1000) AS what
           FROM dispute WHERE due_ms < :now_ms - {GRACE_MS}""",
    ),
)
