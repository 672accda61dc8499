# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, S608 - sentences stay whole, and what is put into the SQL are our own constants
"""What the ledger's audit asks of jobs, their receipts and their artifacts (trust.md I5, I6, I7, I10)."""

from qubix_coordinator.ledger.audit import GRACE_MS, Check

CHECKS = (
    Check(
        "I5-job",
        "a job's amounts are those of its hold",
        """SELECT format('job %s: paid %s, fees %s, returned %s of %s QU; its hold says %s, %s, %s of %s', j.id, j.paid_qu,
             j.fee_qu, j.returned_qu, j.cap_qu, h.paid_qu, h.fees_qu, h.returned_qu, h.held_qu) AS what
           FROM job j JOIN hold h ON h.job_id = j.id
           WHERE (j.cap_qu, j.paid_qu, j.fee_qu, j.returned_qu) <> (h.held_qu, h.paid_qu, h.fees_qu, h.returned_qu)""",
    ),
    Check(
        "I5-unit",
        "each unit is paid or owed once",
        """SELECT format('job number %s: units %s to %s and %s to %s are paid twice', a.job_no, a.start, a.stop, b.start,
             b.stop) AS what
           FROM link a JOIN link b ON b.job_no = a.job_no AND b.id > a.id AND b.start < a.stop AND a.start < b.stop
           WHERE (a.paid OR a.owed) AND (b.paid OR b.owed)""",
    ),
    Check(
        "I6-job",
        "no job, attempt or verdict stays past its deadline",
        f"""SELECT format('job %s is %s, its deadline passed %s s ago', id, state, (:now_ms - deadline_ms) / 1000) AS what
           FROM job WHERE ended_ms IS NULL AND closing IS NULL AND state NOT IN ('delivered', 'disputed')
             AND deadline_ms < :now_ms - {GRACE_MS}
           UNION ALL
           SELECT format('job %s is %s, its acceptance window ended %s s ago', id, state, (:now_ms - due_ms) / 1000)
           FROM job WHERE due_ms < :now_ms - {GRACE_MS}
           UNION ALL
           SELECT format('attempt %s is %s, which ended %s s ago', id, state, (:now_ms - due_ms) / 1000)
           FROM attempt WHERE state IN ('offered', 'running', 'verifying') AND due_ms < :now_ms - {GRACE_MS}
           UNION ALL
           SELECT format('the verdict on attempt %s waits to be applied for %s s', attempt_id,
             (:now_ms - recorded_ms) / 1000)
           FROM verdict WHERE NOT applied AND recorded_ms < :now_ms - {GRACE_MS}""",
    ),
    Check(
        "I7-job",
        "every job that was acknowledged has its hold, its event and its receipt as far as it is",
        """SELECT format('job %s has no hold', j.id) AS what
           FROM job j WHERE j.rental_id IS NULL AND NOT EXISTS (SELECT FROM hold h WHERE h.job_id = j.id)
           UNION ALL
           SELECT format('a hold of %s QU belongs to no job or rental (%s)', h.held_qu, h.job_id)
           FROM hold h WHERE EXISTS (SELECT FROM job) AND NOT EXISTS (SELECT FROM job j WHERE j.id = h.job_id)
             AND NOT EXISTS (SELECT FROM rental r WHERE r.id = h.job_id)
           UNION ALL
           SELECT format('job %s is at revision %s, its newest event tells %s', j.id, j.revision, coalesce(e.told, 0))
           FROM job j LEFT JOIN (SELECT topic, max((payload ->> 'revision')::bigint) AS told FROM event
             WHERE topic LIKE 'job:%' GROUP BY topic) e ON e.topic = 'job:' || j.id
           WHERE coalesce(e.told, 0) <> j.revision AND (e.told IS NOT NULL
             OR j.created_ms > (SELECT extract(epoch FROM min(created_at)) * 1000 FROM event))
           UNION ALL
           SELECT format('the receipt of job %s has %s entries, numbered up to %s', c.chain_id, c.count, c.last)
           FROM (SELECT chain_id, count(*), max(index) AS last FROM receipt_entry GROUP BY chain_id) c
           WHERE c.count <> c.last + 1
           UNION ALL
           SELECT format('entry %s of receipt %s does not name the one before it', b.index, b.chain_id)
           FROM receipt_entry b JOIN receipt_entry a ON a.chain_id = b.chain_id AND a.index = b.index - 1
           WHERE b.predecessor <> a.digest
           UNION ALL
           SELECT format('job %s is %s, its receipt is %s', j.id, j.state, CASE WHEN c.closed THEN 'closed' ELSE 'open' END)
           FROM job j JOIN (SELECT chain_id, bool_or(entry = 'closed') AS closed FROM receipt_entry GROUP BY chain_id) c
             ON c.chain_id = j.id
           WHERE c.closed <> (j.ended_ms IS NOT NULL)
           UNION ALL
           SELECT format('attempt %s has %s links and %s settlements, its receipt has %s and %s', a.id, a.links,
             (a.settlement_raw IS NOT NULL)::int, coalesce(r.linked, 0), coalesce(r.settled, 0))
           FROM (SELECT job_id, sum(links) AS links, count(settlement_raw) AS settled FROM attempt GROUP BY job_id) s
             JOIN (SELECT chain_id, count(*) FILTER (WHERE entry = 'linked') AS linked,
               count(*) FILTER (WHERE entry = 'settled') AS settled FROM receipt_entry GROUP BY chain_id) r
               ON r.chain_id = s.job_id
             JOIN LATERAL (SELECT * FROM attempt WHERE job_id = s.job_id ORDER BY fence LIMIT 1) a ON true
           WHERE (s.links, s.settled) <> (r.linked, r.settled)""",
    ),
    Check(
        "I10",
        "an output is readable when it is paid or owed, and was sent by an attempt at a job of its owner (or a node's test)",
        """SELECT format('output %s of account %s is readable, and nobody was to be paid for it', encode(a.digest, 'hex'),
             a.account_id) AS what
           FROM artifact a WHERE a.readable AND a.origin = 'attempt' AND NOT EXISTS (
             SELECT FROM link l JOIN job j ON j.no = l.job_no WHERE l.output_digest = a.digest
               AND coalesce(j.data_account_id, j.account_id) = a.account_id
               AND (l.paid OR (l.verdict AND NOT j.has_verifier)))
           UNION ALL
           SELECT format('output %s of account %s is paid, stored and not readable', encode(a.digest, 'hex'), a.account_id)
           FROM artifact a WHERE NOT a.readable AND a.origin = 'attempt' AND a.stored_at IS NOT NULL AND EXISTS (
             SELECT FROM link l JOIN job j ON j.no = l.job_no WHERE l.output_digest = a.digest AND l.paid
               AND j.data_account_id IS NULL AND j.account_id = a.account_id)
           UNION ALL
           SELECT format('output %s was sent by %s, which is no attempt at a job of its owner', encode(a.digest, 'hex'),
             w.writer)
           FROM artifact_writer w JOIN artifact a ON a.id = w.artifact_id WHERE NOT EXISTS (
             SELECT FROM attempt t JOIN job j ON j.id = t.job_id WHERE t.id::text = w.writer
               AND coalesce(j.data_account_id, j.account_id) = a.account_id) AND NOT EXISTS (
             SELECT FROM probe p WHERE 'probe:' || p.peer_id = w.writer AND p.digest = a.digest
               AND p.account_id = a.account_id)""",
    ),
)
