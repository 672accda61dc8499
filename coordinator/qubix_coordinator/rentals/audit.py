# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, S608 - sentences stay whole, and what is put into the SQL are our own constants
"""What the ledger's audit asks of rentals (trust.md I5, I6, I7)."""

from qubix_coordinator.ledger.audit import GRACE_MS, Check

CHECKS = (
    Check(
        "I5-rental",
        "a rental's amounts are those of its hold and of its parts, and no second of a device is billed twice",
        """SELECT format('rental %s: paid %s, fees %s, returned %s of %s QU; its hold says %s, %s, %s of %s', r.id, r.paid_qu,
             r.fee_qu, r.returned_qu, r.hold_qu, h.paid_qu, h.fees_qu, h.returned_qu, h.held_qu) AS what
           FROM rental r JOIN hold h ON h.job_id = r.id
           WHERE (r.hold_qu, r.paid_qu, r.fee_qu, r.returned_qu) <> (h.held_qu, h.paid_qu, h.fees_qu, h.returned_qu)
           UNION ALL
           SELECT format('rental %s: paid %s, fees %s QU; its parts say %s, %s', r.id, r.paid_qu, r.fee_qu,
             coalesce(s.paid, 0), coalesce(s.fees, 0))
           FROM rental r LEFT JOIN (SELECT rental_id, sum(paid_qu) AS paid, sum(fee_qu) AS fees FROM rental_settlement
             GROUP BY 1) s ON s.rental_id = r.id
           WHERE (r.paid_qu, r.fee_qu) <> (coalesce(s.paid, 0), coalesce(s.fees, 0))
           UNION ALL
           SELECT format('device number %s was billed twice between %s and %s', a.listing_no, b.start_ms, a.stop_ms)
           FROM rental_period a JOIN rental_period b ON b.listing_no = a.listing_no AND b.id > a.id
             AND b.start_ms < a.stop_ms AND a.start_ms < b.stop_ms""",
    ),
    Check(
        "I7-rental-group",
        "devices that were rented together all have their rental",
        """SELECT format('group %s of %s devices has %s rentals', g.id, g.devices, count(r.id)) AS what
           FROM rental_group g LEFT JOIN rental r ON r.group_id = g.id GROUP BY g.id HAVING count(r.id) <> g.devices""",
    ),
    Check(
        "I6-rental",
        "no rental stays past its deadline",
        f"""SELECT format('rental %s is %s, what was to be done is %s s late', id, state, (:now_ms - due_ms) / 1000) AS what
           FROM rental WHERE state <> 'ended' AND due_ms < :now_ms - {GRACE_MS}""",
    ),
    Check(
        "I7-rental",
        "every rental that was acknowledged has its hold",
        """SELECT format('rental %s has no hold', r.id) AS what
           FROM rental r WHERE NOT EXISTS (SELECT FROM hold h WHERE h.job_id = r.id)""",
    ),
)
