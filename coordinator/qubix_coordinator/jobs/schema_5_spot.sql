-- SPDX-License-Identifier: Apache-2.0
-- Spot checks (trust.md C5): one link of an attempt that no verifier can judge, drawn after it was committed, is run again
-- by an unrelated provider, and by a second one where the first made something else.

CREATE TABLE spot_check (
    -- an attempt is drawn once
    attempt_id   uuid PRIMARY KEY CONSTRAINT spot_check_attempt_fk REFERENCES attempt (id),
    job_id       uuid NOT NULL CONSTRAINT spot_check_job_fk REFERENCES job (id),
    peer_id      text NOT NULL CONSTRAINT spot_check_node_fk REFERENCES node (peer_id),
    provider_id  uuid NOT NULL CONSTRAINT spot_check_provider_fk REFERENCES account (id),
    state        text NOT NULL CONSTRAINT spot_check_state_known CHECK
                 (state IN ('waiting', 'rerunning', 'looking', 'passed', 'failed', 'undecided', 'not_done')),
    detail       text NOT NULL DEFAULT '' CONSTRAINT spot_check_detail_bounded CHECK (length(detail) <= 2000),
    start        bigint NOT NULL,
    stop         bigint NOT NULL,
    worth_qu     bigint NOT NULL CONSTRAINT spot_check_worth_not_negative CHECK (worth_qu >= 0),
    draws        integer NOT NULL DEFAULT 0 CONSTRAINT spot_check_draws_bounded CHECK (draws BETWEEN 0 AND 8),
    -- so many re-runs made something else
    against      integer NOT NULL DEFAULT 0 CONSTRAINT spot_check_against_bounded CHECK (against BETWEEN 0 AND 2),
    rerun_job_id uuid CONSTRAINT spot_check_rerun_fk REFERENCES job (id),
    look_id      uuid CONSTRAINT spot_check_look_fk REFERENCES second_look (id),
    drawn_ms     bigint NOT NULL,
    look_ms      bigint NOT NULL DEFAULT 0,
    due_ms       bigint,
    ended_ms     bigint,
    CONSTRAINT spot_check_some_units CHECK (0 <= start AND start < stop),
    -- trust.md M5: whatever is open has a deadline
    CONSTRAINT spot_check_due_while_open
        CHECK ((due_ms IS NOT NULL) = (state IN ('waiting', 'rerunning', 'looking')) AND (due_ms IS NULL) = (ended_ms IS NOT NULL)),
    CONSTRAINT spot_check_rerun_named CHECK (state <> 'rerunning' OR rerun_job_id IS NOT NULL),
    CONSTRAINT spot_check_look_named CHECK (state <> 'looking' OR look_id IS NOT NULL)
);
CREATE INDEX spot_check_open ON spot_check (look_ms) WHERE ended_ms IS NULL;

-- Every re-run of a spot check, and what was found when it was compared.
CREATE TABLE spot_rerun (
    job_id     uuid PRIMARY KEY CONSTRAINT spot_rerun_job_fk REFERENCES job (id),
    attempt_id uuid NOT NULL CONSTRAINT spot_rerun_check_fk REFERENCES spot_check (attempt_id),
    peer_id    text NOT NULL,
    draw       integer NOT NULL,
    lent_qu    bigint NOT NULL CONSTRAINT spot_rerun_lent_positive CHECK (lent_qu > 0),
    lent_ms    bigint NOT NULL,
    cost_qu    bigint NOT NULL DEFAULT 0 CONSTRAINT spot_rerun_cost_within_lent CHECK (cost_qu BETWEEN 0 AND lent_qu),
    same       boolean,
    settled    boolean NOT NULL DEFAULT false,
    CONSTRAINT spot_rerun_numbered UNIQUE (attempt_id, draw)
);
CREATE INDEX spot_rerun_lent ON spot_rerun (lent_ms);
CREATE INDEX spot_rerun_open ON spot_rerun (attempt_id) WHERE NOT settled;

-- A second look may be at a part of the attempt alone.
ALTER TABLE second_look
    ADD COLUMN start bigint,
    ADD COLUMN stop bigint,
    ADD CONSTRAINT second_look_part CHECK ((start IS NULL) = (stop IS NULL) AND start < stop);

-- What of a provider's unchecked work is not paid yet.
CREATE INDEX attempt_owed_to ON attempt (peer_id) WHERE owed_qu > 0;
CREATE INDEX work_outcome_by_provider ON work_outcome (provider_id, no);
