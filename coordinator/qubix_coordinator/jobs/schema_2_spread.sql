-- SPDX-License-Identifier: Apache-2.0
-- A job may be in several hands at once. Jobs from before stay in one.

ALTER TABLE job
    -- the consumer's wish; null: as many as pay, at about the same price
    ADD COLUMN spread integer CONSTRAINT job_spread_bounded CHECK (spread BETWEEN 1 AND 64),
    ADD COLUMN hands_max integer NOT NULL DEFAULT 1 CONSTRAINT job_hands_bounded CHECK (hands_max BETWEEN 1 AND 64),
    -- units that are neither accepted nor in an open attempt's hands
    ADD COLUMN units_waiting bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT job_waiting_bounded CHECK (units_waiting BETWEEN 0 AND units - units_accepted),
    ADD CONSTRAINT job_nothing_waits_when_final CHECK (ended_ms IS NULL OR units_waiting = 0),
    DROP CONSTRAINT job_closing_known,
    ADD CONSTRAINT job_closing_known CHECK
        (closing IN ('cancelled_by_consumer', 'expired', 'cap_reached', 'bad_input', 'attempts_exhausted'));

UPDATE job SET units_waiting = units - units_accepted - coalesce(
    (SELECT sum(a.units) FROM attempt a WHERE a.job_id = job.id AND a.state IN ('offered', 'running', 'verifying')), 0)
    WHERE ended_ms IS NULL;

DROP INDEX job_waiting;
CREATE INDEX job_waiting ON job (match_ms) WHERE units_waiting > 0;

-- The units of [[start, stop], …] of a job, where link_unit_paid_once counts them: at job_no × 2^40.
CREATE FUNCTION units_of(job_no bigint, ranges jsonb) RETURNS nummultirange LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT coalesce(range_agg(numrange(job_no::numeric * 1099511627776 + (one ->> 0)::bigint,
                                       job_no::numeric * 1099511627776 + (one ->> 1)::bigint)), '{}')
    FROM jsonb_array_elements(ranges) AS one
$$;

-- Each unit is in one pair of hands at a time, from the assignment until what was made of it is checked.
DROP INDEX attempt_one_open;
CREATE INDEX attempt_open_by_job ON attempt (job_id) WHERE state IN ('offered', 'running', 'verifying');
ALTER TABLE attempt ADD CONSTRAINT attempt_unit_in_one_hand EXCLUDE USING gist (units_of(job_no, ranges) WITH &&)
    WHERE (state IN ('offered', 'running', 'verifying'));
