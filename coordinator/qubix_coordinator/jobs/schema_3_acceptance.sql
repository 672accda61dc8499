-- SPDX-License-Identifier: Apache-2.0
-- Jobs of kernels without a verifier: what was delivered is owed, readable and contestable until it is paid.

ALTER TABLE job
    -- frozen at submission: only jobs without one wait for the consumer's word (trust.md M6)
    ADD COLUMN has_verifier boolean NOT NULL DEFAULT true,
    -- for delivered work, out of the hold, not yet paid
    ADD COLUMN owed_qu bigint NOT NULL DEFAULT 0 CONSTRAINT job_owed_not_negative CHECK (owed_qu >= 0),
    -- when the acceptance window ends, and what is owed is paid by default (trust.md M5)
    ADD COLUMN due_ms bigint,
    DROP CONSTRAINT job_state_known,
    ADD CONSTRAINT job_state_known CHECK (state IN
        ('queued', 'assigned', 'running', 'verifying', 'delivered', 'disputed', 'settled', 'resolved', 'failed', 'cancelled')),
    DROP CONSTRAINT job_hold_not_overspent,
    ADD CONSTRAINT job_hold_not_overspent CHECK (paid_qu + fee_qu + returned_qu + owed_qu <= cap_qu),
    DROP CONSTRAINT job_ended_when_final,
    ADD CONSTRAINT job_ended_when_final
        CHECK ((ended_ms IS NOT NULL) = (state IN ('settled', 'resolved', 'failed', 'cancelled'))),
    DROP CONSTRAINT job_hold_spent_when_final,
    ADD CONSTRAINT job_hold_spent_when_final CHECK (ended_ms IS NULL OR paid_qu + fee_qu + returned_qu = cap_qu),
    ADD CONSTRAINT job_owes_without_verifier CHECK (owed_qu = 0 OR NOT has_verifier),
    ADD CONSTRAINT job_delivered_is_owed_and_due
        CHECK ((state = 'delivered') = (due_ms IS NOT NULL) AND (state <> 'delivered' OR owed_qu > 0));
CREATE INDEX job_window ON job (due_ms) WHERE due_ms IS NOT NULL;

ALTER TABLE attempt
    ADD COLUMN owed_qu bigint NOT NULL DEFAULT 0 CONSTRAINT attempt_owed_not_negative CHECK (owed_qu >= 0),
    DROP CONSTRAINT attempt_state_known,
    ADD CONSTRAINT attempt_state_known CHECK
        (state IN ('offered', 'running', 'verifying', 'delivered', 'accepted', 'rejected', 'empty')),
    ADD CONSTRAINT attempt_owed_or_paid CHECK (owed_qu = 0 OR paid_qu + fee_qu = 0),
    ADD CONSTRAINT attempt_delivered_is_owed CHECK (state <> 'delivered' OR owed_qu > 0);
CREATE INDEX attempt_owed ON attempt (job_id) WHERE owed_qu > 0;

-- Delivered units are as taken as paid ones: nobody makes them again, and each is owed or paid once (trust.md M3).
ALTER TABLE link
    ADD COLUMN owed boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT link_owed_only_when_good CHECK (NOT owed OR (verdict IS TRUE AND NOT paid)),
    DROP CONSTRAINT link_unit_paid_once,
    ADD CONSTRAINT link_unit_paid_once EXCLUDE USING gist
        (numrange(job_no::numeric * 1099511627776 + start, job_no::numeric * 1099511627776 + stop) WITH &&)
        WHERE (paid OR owed);
DROP INDEX link_by_job;
CREATE INDEX link_by_job ON link (job_no) WHERE paid OR owed;

-- A job may run some of another's units again, on that one's data (see disputes/): `account_id` pays, the owner of the
-- data stays who it was, and `only_units` are those, [[start, stop], …], of `units_whole`.
ALTER TABLE job
    ADD COLUMN data_account_id uuid CONSTRAINT job_data_account_fk REFERENCES account (id),
    ADD COLUMN only_units jsonb,
    ADD COLUMN units_whole bigint,
    ADD CONSTRAINT job_only_of_a_whole CHECK ((only_units IS NULL) = (units_whole IS NULL));
