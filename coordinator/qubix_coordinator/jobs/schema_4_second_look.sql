-- SPDX-License-Identifier: Apache-2.0
-- A second look at some of an attempt's links, by a verifier process: anew with fresh randomness, or beside what
-- another job made of the same units. Claimed like checks, recorded once.

CREATE TABLE second_look (
    id             uuid PRIMARY KEY,
    attempt_id     uuid NOT NULL CONSTRAINT second_look_attempt_fk REFERENCES attempt (id),
    -- which of the attempt's links: those found good the first time, or those that were not
    good           boolean NOT NULL,
    other_job_id   uuid CONSTRAINT second_look_other_fk REFERENCES job (id),
    due_ms         bigint NOT NULL,
    claimed_by     text NOT NULL DEFAULT '',
    claim_until_ms bigint NOT NULL DEFAULT 0,
    carried_out    boolean,
    accepted       boolean,
    reason         text NOT NULL DEFAULT '',
    detail         text NOT NULL DEFAULT '' CONSTRAINT second_look_detail_bounded CHECK (length(detail) <= 2000),
    seed           bytea NOT NULL DEFAULT '',
    check_ms       bigint NOT NULL DEFAULT 0,
    recorded_ms    bigint,
    CONSTRAINT second_look_recorded_whole
        CHECK ((recorded_ms IS NULL) = (carried_out IS NULL) AND (recorded_ms IS NULL) = (accepted IS NULL))
);
CREATE INDEX second_look_waiting ON second_look (due_ms) WHERE recorded_ms IS NULL;
