-- SPDX-License-Identifier: Apache-2.0
-- What an account earned, by device and quarter of an hour, so that a view does not read every settlement there ever was.
-- Every time zone's days begin at a quarter. The ledger's own transaction keeps it, while the account's row is locked.

CREATE TABLE earnings_part (
    account_id    bigint NOT NULL CONSTRAINT earnings_part_account_fk REFERENCES ledger_account (id),
    quarter       timestamptz NOT NULL,
    -- null: of no device that is known
    listing_id    uuid,
    earned_qu     bigint NOT NULL,
    fee_qu        bigint NOT NULL,
    awarded_qu    bigint NOT NULL,
    taken_back_qu bigint NOT NULL,
    settlements   bigint NOT NULL,
    -- its entries lie between these, among others: for a range that begins or ends within the quarter
    entry_first   bigint NOT NULL,
    entry_last    bigint NOT NULL,
    CONSTRAINT earnings_part_once UNIQUE NULLS NOT DISTINCT (account_id, quarter, listing_id)
) WITH (fillfactor = 70);

CREATE FUNCTION quarter_of(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT date_bin('15 minutes', at, '2000-01-01 00:00:00+00')
$$;

-- A cause that names no attempt or decision where one is expected is work of no device that is known, and no reason to
-- refuse the transfer.

CREATE FUNCTION cause_part(cause text, place integer) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN split_part(cause, ':', place) ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'
        THEN split_part(cause, ':', place)::uuid END
$$;

-- What each entry gave or took of an account by work. Parts of a cause are what ledger/rules.py makes them of.
CREATE VIEW earnings_moved AS
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

-- What the parts must be.
CREATE VIEW earnings_sums AS
    SELECT account_id, quarter_of(posted_at) AS quarter, listing_id, sum(earned_qu)::bigint AS earned_qu,
           sum(fee_qu)::bigint AS fee_qu, sum(awarded_qu)::bigint AS awarded_qu,
           sum(taken_back_qu)::bigint AS taken_back_qu, sum(settlements)::bigint AS settlements,
           min(entry_id) AS entry_first, max(entry_id) AS entry_last
      FROM earnings_moved GROUP BY account_id, quarter_of(posted_at), listing_id;

INSERT INTO earnings_part SELECT * FROM earnings_sums;

CREATE TRIGGER earnings_part_kept BEFORE INSERT OR UPDATE OR DELETE ON earnings_part
    FOR EACH ROW EXECUTE FUNCTION refuse_by_hand();

CREATE FUNCTION entry_earned() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO earnings_part AS p
        SELECT m.account_id, quarter_of(m.posted_at), m.listing_id, sum(m.earned_qu), sum(m.fee_qu), sum(m.awarded_qu),
               sum(m.taken_back_qu), sum(m.settlements), min(m.entry_id), max(m.entry_id)
          FROM posted n JOIN earnings_moved m ON m.account_id = n.account_id AND m.entry_id = n.id
         GROUP BY m.account_id, quarter_of(m.posted_at), m.listing_id ORDER BY 1, 2, 3
        ON CONFLICT (account_id, quarter, listing_id) DO UPDATE SET
            earned_qu = p.earned_qu + excluded.earned_qu,
            fee_qu = p.fee_qu + excluded.fee_qu,
            awarded_qu = p.awarded_qu + excluded.awarded_qu,
            taken_back_qu = p.taken_back_qu + excluded.taken_back_qu,
            settlements = p.settlements + excluded.settlements,
            entry_first = least(p.entry_first, excluded.entry_first),
            entry_last = greatest(p.entry_last, excluded.entry_last);
    RETURN NULL;
END $$;

-- Its name comes after entry_posted's, which locks the accounts.
CREATE TRIGGER entry_posted_earned AFTER INSERT ON entry REFERENCING NEW TABLE AS posted
    FOR EACH STATEMENT EXECUTE FUNCTION entry_earned();
