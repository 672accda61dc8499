-- SPDX-License-Identifier: Apache-2.0
-- What became of work, and what it says of each listing (trust.md C5). `work_outcome` is the evidence; `reputation` holds
-- its sums, which halve with time, so that one more outcome costs the same however many there were.

CREATE TABLE work_outcome (
    attempt_id  uuid NOT NULL CONSTRAINT work_outcome_attempt_fk REFERENCES attempt (id),
    what        text NOT NULL CONSTRAINT work_outcome_known
                CHECK (what IN ('finished', 'failed', 'right', 'wrong', 'dispute_won', 'dispute_lost')),
    listing_id  uuid NOT NULL CONSTRAINT work_outcome_listing_fk REFERENCES listing (id),
    provider_id uuid NOT NULL CONSTRAINT work_outcome_provider_fk REFERENCES account (id),
    consumer_id uuid NOT NULL CONSTRAINT work_outcome_consumer_fk REFERENCES account (id),
    -- false: good work for somebody related to the provider, which proves nothing
    counts      boolean NOT NULL CONSTRAINT work_outcome_losses_count
                CHECK (counts OR what IN ('finished', 'right', 'dispute_won')),
    worth_qu    bigint NOT NULL CONSTRAINT work_outcome_worth_not_negative CHECK (worth_qu >= 0),
    run_ms      bigint NOT NULL CONSTRAINT work_outcome_run_not_negative CHECK (run_ms >= 0),
    forecast_ms bigint NOT NULL CONSTRAINT work_outcome_forecast_not_negative CHECK (forecast_ms >= 0),
    at_ms       bigint NOT NULL,
    no          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT work_outcome_numbered UNIQUE,
    -- each thing is learned of an attempt once
    PRIMARY KEY (attempt_id, what),
    CONSTRAINT work_outcome_own_work_proves_nothing CHECK (NOT counts OR consumer_id <> provider_id
        OR what NOT IN ('finished', 'right', 'dispute_won'))
);
CREATE INDEX work_outcome_by_listing ON work_outcome (listing_id, no);
CREATE TRIGGER work_outcome_append_only BEFORE UPDATE OR DELETE ON work_outcome
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE reputation (
    listing_id  uuid PRIMARY KEY CONSTRAINT reputation_listing_fk REFERENCES listing (id),
    at_ms       bigint NOT NULL,
    finished    double precision NOT NULL CONSTRAINT reputation_finished_counts CHECK (finished >= 0 AND finished < 'Infinity'),
    failed      double precision NOT NULL CONSTRAINT reputation_failed_counts CHECK (failed >= 0 AND failed < 'Infinity'),
    "right"     double precision NOT NULL CONSTRAINT reputation_right_counts CHECK ("right" >= 0 AND "right" < 'Infinity'),
    wrong       double precision NOT NULL CONSTRAINT reputation_wrong_counts CHECK (wrong >= 0 AND wrong < 'Infinity'),
    punctual    double precision NOT NULL CONSTRAINT reputation_punctual_counts CHECK (punctual >= 0 AND punctual < 'Infinity'),
    slowness    double precision NOT NULL CONSTRAINT reputation_slowness_counts CHECK (slowness >= 0 AND slowness < 'Infinity'),
    gained      double precision NOT NULL CONSTRAINT reputation_gained_counts CHECK (gained >= 0 AND gained < 'Infinity'),
    pieces      double precision NOT NULL CONSTRAINT reputation_pieces_count CHECK (pieces >= 0 AND pieces < 'Infinity'),
    won         double precision NOT NULL CONSTRAINT reputation_won_counts CHECK (won >= 0 AND won < 'Infinity'),
    lost        double precision NOT NULL CONSTRAINT reputation_lost_counts CHECK (lost >= 0 AND lost < 'Infinity')
);

-- How long the listing's offers stood lately, in milliseconds that halve with time, as of `up_seen_ms`.
ALTER TABLE listing
    ADD COLUMN up_since_ms bigint NOT NULL DEFAULT 0,
    ADD COLUMN up_seen_ms bigint NOT NULL DEFAULT 0,
    ADD COLUMN up_ms double precision NOT NULL DEFAULT 0 CONSTRAINT listing_up_not_negative CHECK (up_ms >= 0);
