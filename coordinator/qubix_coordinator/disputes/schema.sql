-- SPDX-License-Identifier: Apache-2.0
-- Disputes about single attempts (trust.md M7), each step of them, arbiters' votes, and what the fund has paid.

CREATE SEQUENCE dispute_no;

CREATE TABLE dispute (
    id              uuid PRIMARY KEY,
    no              bigint NOT NULL CONSTRAINT dispute_no_unique UNIQUE,
    job_id          uuid NOT NULL CONSTRAINT dispute_job_fk REFERENCES job (id),
    attempt_id      uuid NOT NULL CONSTRAINT dispute_attempt_fk REFERENCES attempt (id),
    fence           bigint NOT NULL,
    peer_id         text NOT NULL CONSTRAINT dispute_node_fk REFERENCES node (peer_id),
    opened_by       text NOT NULL CONSTRAINT dispute_side_known CHECK (opened_by IN ('consumer', 'provider')),
    consumer_id     uuid NOT NULL CONSTRAINT dispute_consumer_fk REFERENCES account (id),
    provider_id     uuid NOT NULL CONSTRAINT dispute_provider_fk REFERENCES account (id),
    state           text NOT NULL CONSTRAINT dispute_state_known CHECK
                    (state IN ('opened', 'rerunning', 'judging', 'resolved')),
    -- a verifier's verdict answers where the other side does not
    checked         boolean NOT NULL,
    -- the job's hold is still open: the award is a part of it
    in_window       boolean NOT NULL,
    ranges          jsonb NOT NULL,
    stake_qu        bigint NOT NULL CONSTRAINT dispute_stake_positive CHECK (stake_qu > 0),
    bond_qu         bigint NOT NULL CONSTRAINT dispute_bond_positive CHECK (bond_qu > 0),
    answer_bond_qu  bigint NOT NULL DEFAULT 0 CONSTRAINT dispute_answer_bond_not_negative CHECK (answer_bond_qu >= 0),
    finding         text NOT NULL DEFAULT 'none' CONSTRAINT dispute_finding_known CHECK
                    (finding IN ('none', 'upheld', 'refuted', 'undecidable')),
    rerun_job_id    uuid CONSTRAINT dispute_rerun_fk REFERENCES job (id),
    rerun_peer_id   text,
    rerun_cost_qu   bigint NOT NULL DEFAULT 0 CONSTRAINT dispute_rerun_cost_not_negative CHECK (rerun_cost_qu >= 0),
    -- what the re-run did not cost is bond again
    rerun_settled   boolean NOT NULL DEFAULT true,
    draws           integer NOT NULL DEFAULT 0,
    outcome         text CONSTRAINT dispute_outcome_known CHECK
                    (outcome IN ('conceded', 'defaulted', 'withdrawn', 'upheld', 'refuted', 'undecidable', 'decided')),
    award_qu        bigint NOT NULL DEFAULT 0,
    from_hold_qu    bigint NOT NULL DEFAULT 0 CONSTRAINT dispute_from_hold_not_negative CHECK (from_hold_qu >= 0),
    from_provider_qu bigint NOT NULL DEFAULT 0 CONSTRAINT dispute_from_provider_not_negative CHECK (from_provider_qu >= 0),
    from_fees_qu    bigint NOT NULL DEFAULT 0 CONSTRAINT dispute_from_fees_not_negative CHECK (from_fees_qu >= 0),
    from_fund_qu    bigint NOT NULL DEFAULT 0 CONSTRAINT dispute_from_fund_not_negative CHECK (from_fund_qu >= 0),
    opened_ms       bigint NOT NULL,
    due_ms          bigint,
    look_ms         bigint NOT NULL DEFAULT 0,
    resolved_ms     bigint,
    revision        bigint NOT NULL DEFAULT 0,
    CONSTRAINT dispute_between_two CHECK (consumer_id <> provider_id),
    CONSTRAINT dispute_award_within_stake CHECK (award_qu BETWEEN 0 AND stake_qu),
    CONSTRAINT dispute_award_once
        CHECK (from_hold_qu + from_provider_qu + from_fees_qu + from_fund_qu <= award_qu),
    CONSTRAINT dispute_rerun_within_bond CHECK (rerun_cost_qu <= bond_qu),
    -- trust.md M5: whatever is open has a deadline
    CONSTRAINT dispute_due_while_open CHECK ((due_ms IS NULL) = (state = 'resolved')),
    CONSTRAINT dispute_outcome_when_resolved
        CHECK ((outcome IS NOT NULL) = (state = 'resolved') AND (resolved_ms IS NOT NULL) = (state = 'resolved'))
);
CREATE UNIQUE INDEX dispute_once ON dispute (attempt_id, opened_by);
CREATE UNIQUE INDEX dispute_one_open ON dispute (attempt_id) WHERE state <> 'resolved';
CREATE INDEX dispute_due ON dispute (due_ms) WHERE state <> 'resolved';
CREATE INDEX dispute_rerun ON dispute (look_ms) WHERE NOT rerun_settled;
CREATE INDEX dispute_by_job ON dispute (job_id);
CREATE INDEX dispute_by_consumer ON dispute (consumer_id, no DESC);
CREATE INDEX dispute_by_provider ON dispute (provider_id, no DESC);

-- What both sides see, in order; never changed.
CREATE TABLE dispute_step (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dispute_id uuid NOT NULL CONSTRAINT dispute_step_dispute_fk REFERENCES dispute (id),
    at_ms      bigint NOT NULL,
    by         text NOT NULL CONSTRAINT dispute_step_by_known CHECK (by IN ('consumer', 'provider', 'arbiter', 'market')),
    what       text NOT NULL CONSTRAINT dispute_step_what_bounded CHECK (length(what) BETWEEN 1 AND 40),
    text       text NOT NULL DEFAULT '' CONSTRAINT dispute_step_text_bounded CHECK (length(text) <= 4000),
    digests    bytea[] NOT NULL DEFAULT '{}' CONSTRAINT dispute_step_digests_bounded CHECK (cardinality(digests) <= 32)
);
CREATE INDEX dispute_step_by_dispute ON dispute_step (dispute_id, id);
CREATE TRIGGER dispute_step_append_only BEFORE UPDATE OR DELETE ON dispute_step
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE dispute_vote (
    dispute_id uuid NOT NULL CONSTRAINT dispute_vote_dispute_fk REFERENCES dispute (id),
    arbiter_id uuid NOT NULL CONSTRAINT dispute_vote_arbiter_fk REFERENCES account (id),
    award_qu   bigint NOT NULL CONSTRAINT dispute_vote_not_negative CHECK (award_qu >= 0),
    reason     text NOT NULL,
    at_ms      bigint NOT NULL,
    PRIMARY KEY (dispute_id, arbiter_id)
);

-- An arbiter is no party of what they judge (trust.md M7), whoever writes the row.
CREATE FUNCTION vote_of_no_party() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM dispute d WHERE d.id = NEW.dispute_id AND NEW.arbiter_id IN (d.consumer_id, d.provider_id)) THEN
        RAISE EXCEPTION 'a party of dispute % cannot judge it', NEW.dispute_id USING ERRCODE = 'QX006';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER dispute_vote_of_no_party BEFORE INSERT OR UPDATE ON dispute_vote
    FOR EACH ROW EXECUTE FUNCTION vote_of_no_party();

CREATE TABLE fund_payment (
    dispute_id uuid PRIMARY KEY CONSTRAINT fund_payment_dispute_fk REFERENCES dispute (id),
    account_id uuid NOT NULL CONSTRAINT fund_payment_account_fk REFERENCES account (id),
    amount_qu  bigint NOT NULL CONSTRAINT fund_payment_positive CHECK (amount_qu > 0),
    paid_ms    bigint NOT NULL
);
CREATE INDEX fund_payment_by_time ON fund_payment (paid_ms);
