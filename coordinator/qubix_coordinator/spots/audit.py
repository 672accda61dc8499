# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, S608 - sentences stay whole, and what is put into the SQL are our own constants
"""What the ledger's audit asks of spot checks and forfeits (trust.md C5, I5, I6)."""

from qubix_coordinator.ledger.audit import GRACE_MS, Check

CHECKS = (
    Check(
        "I5-forfeit",
        "what was forfeited is what the ledger took, no more than was new, and of unpaid work nothing is owed",
        """SELECT format('forfeit %s: %s QU, the ledger took %s', coalesce(f.id::text, t.cause), coalesce(f.amount_qu, 0),
             coalesce(t.qu, 0)) AS what
           FROM forfeit f FULL JOIN (SELECT t.cause, sum(e.amount_qu) AS qu FROM transfer t JOIN entry e ON e.transfer_id = t.id
             WHERE t.kind = 'forfeit' AND e.amount_qu > 0 GROUP BY 1) t ON t.cause = 'forfeit:' || f.id
           WHERE coalesce(f.amount_qu, 0) <> coalesce(t.qu, 0)
           UNION ALL
           SELECT format('forfeit %s: %s QU were new, its settlements say %s', f.id, f.new_qu, coalesce(s.qu, 0))
           FROM forfeit f LEFT JOIN (SELECT g.forfeit_id, sum(e.amount_qu) AS qu FROM forfeited g
             JOIN entry e ON e.transfer_id = g.transfer_id JOIN ledger_account a ON a.id = e.account_id AND a.owner = g.account_id
             GROUP BY 1) s ON s.forfeit_id = f.id
           WHERE f.new_qu <> coalesce(s.qu, 0)""",
    ),
    Check(
        "I5-spot",
        "what the fund lent for spot checks was spent on their re-runs or came back",
        """SELECT format('re-run %s of attempt %s: lent %s QU, spent %s; the ledger lent %s and got back %s', r.draw, r.attempt_id,
             r.lent_qu, r.cost_qu, coalesce(l.qu, 0), coalesce(b.qu, 0)) AS what
           FROM spot_rerun r
           LEFT JOIN (SELECT t.cause, sum(e.amount_qu) AS qu FROM transfer t JOIN entry e ON e.transfer_id = t.id
             WHERE t.kind = 'spot' AND e.amount_qu > 0 GROUP BY 1) l ON l.cause = 'spot:' || r.attempt_id || ':' || r.draw
           LEFT JOIN (SELECT t.cause, sum(e.amount_qu) AS qu FROM transfer t JOIN entry e ON e.transfer_id = t.id
             WHERE t.kind = 'spot_back' AND e.amount_qu > 0 GROUP BY 1) b ON b.cause = 'spot_back:' || r.attempt_id || ':' || r.draw
           WHERE r.lent_qu <> coalesce(l.qu, 0)
              OR coalesce(b.qu, 0) <> CASE WHEN r.settled THEN r.lent_qu - r.cost_qu ELSE 0 END""",
    ),
    Check(
        "I6-spot",
        "no spot check stays past its deadline",
        f"""SELECT format('the spot check of attempt %s is %s, its deadline passed %s s ago', attempt_id, state,
             (:now_ms - due_ms) / 1000) AS what
           FROM spot_check WHERE due_ms < :now_ms - {GRACE_MS}""",
    ),
)
