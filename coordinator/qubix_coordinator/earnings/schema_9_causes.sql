-- SPDX-License-Identifier: Apache-2.0
-- A cause that names no attempt or decision where one is expected is work of no device that is known, and no reason to
-- refuse the transfer.

CREATE FUNCTION cause_part(cause text, place integer) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN split_part(cause, ':', place) ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'
        THEN split_part(cause, ':', place)::uuid END
$$;

-- What each entry gave or took of an account by work. Parts of a cause are what ledger/rules.py makes them of.
CREATE OR REPLACE VIEW earnings_moved AS
    SELECT e.account_id, e.id AS entry_id, t.posted_at,
           CASE t.kind
               WHEN 'settle' THEN coalesce(
                   (SELECT a.listing_id FROM attempt a WHERE a.id = cause_part(t.cause, 3)),
                   (SELECT r.listing_id FROM rental r WHERE r.id = t.job_id))
               WHEN 'refund' THEN (SELECT a.listing_id FROM dispute d JOIN attempt a ON a.id = d.attempt_id
                   WHERE d.id = cause_part(t.cause, 2))
               ELSE (SELECT a.listing_id FROM forfeit f JOIN attempt a ON a.id = f.attempt_id
                   WHERE f.id = cause_part(t.cause, 2))
           END AS listing_id,
           CASE WHEN t.kind = 'settle' THEN e.amount_qu ELSE 0 END AS earned_qu,
           CASE WHEN t.kind = 'settle' THEN coalesce((SELECT f.amount_qu FROM entry f WHERE f.transfer_id = t.id
               AND f.account_id = (SELECT id FROM ledger_account WHERE kind = 'fees')), 0) ELSE 0 END AS fee_qu,
           CASE WHEN t.kind = 'refund' AND e.amount_qu > 0 THEN e.amount_qu ELSE 0 END AS awarded_qu,
           CASE WHEN t.kind <> 'settle' AND e.amount_qu < 0 THEN -e.amount_qu ELSE 0 END AS taken_back_qu,
           CASE WHEN t.kind = 'settle' THEN 1 ELSE 0 END AS settlements
      FROM entry e JOIN transfer t ON t.id = e.transfer_id
      JOIN ledger_account u ON u.id = e.account_id AND u.kind = 'user'
     WHERE (t.kind = 'settle' AND e.amount_qu > 0) OR t.kind = 'forfeit'
        OR (t.kind = 'refund' AND (e.amount_qu < 0 OR EXISTS (
            SELECT FROM dispute d WHERE d.id = cause_part(t.cause, 2) AND d.opened_by = 'provider'
               AND d.provider_id = u.owner)));
