-- SPDX-License-Identifier: Apache-2.0
-- Trials of hardware (trust C6): what was claimed, what was asked, when it was answered, what was found.

CREATE TABLE trial (
    id       uuid PRIMARY KEY,
    peer_id  text NOT NULL CONSTRAINT trial_node_fk REFERENCES node (peer_id),
    state    text NOT NULL CONSTRAINT trial_state_known
             CHECK (state IN ('asked', 'filling', 'proving', 'judging', 'passed', 'failed', 'void')),
    seed     bytea CONSTRAINT trial_seed_is_32_bytes CHECK (octet_length(seed) = 32),
    key      bytea CONSTRAINT trial_key_is_32_bytes CHECK (octet_length(key) = 32),
    asked_ms bigint NOT NULL,
    due_ms   bigint NOT NULL,
    ended_ms bigint,
    reason   text NOT NULL DEFAULT '',
    detail   text NOT NULL DEFAULT '',
    CONSTRAINT trial_ends_with_a_verdict CHECK ((ended_ms IS NOT NULL) = (state IN ('passed', 'failed', 'void'))),
    -- The key is drawn when the memory is said to be full, never before.
    CONSTRAINT trial_key_after_seed CHECK (key IS NULL OR seed IS NOT NULL)
);
-- One at a time on a node: it is about all of its devices.
CREATE UNIQUE INDEX trial_one_open ON trial (peer_id) WHERE ended_ms IS NULL;
CREATE INDEX trial_due ON trial (due_ms) WHERE ended_ms IS NULL;
CREATE INDEX trial_newest ON trial (peer_id, asked_ms DESC);

CREATE TABLE trial_part (
    trial_id      uuid NOT NULL CONSTRAINT trial_part_trial_fk REFERENCES trial (id) ON DELETE CASCADE,
    listing_id    uuid NOT NULL CONSTRAINT trial_part_listing_fk REFERENCES listing (id),
    device_id     text NOT NULL,
    backend       text NOT NULL,
    -- claims at the time
    kind          text NOT NULL,
    model         text NOT NULL,
    driver        text NOT NULL,
    memory_bytes  bigint NOT NULL,
    claimed_flops double precision NOT NULL CONSTRAINT trial_part_claim_positive CHECK (claimed_flops > 0),
    -- what was asked
    pages         integer NOT NULL,
    rows_of_page  integer NOT NULL,
    columns       integer NOT NULL,
    depth         integer NOT NULL,
    -- what came
    ready         boolean NOT NULL DEFAULT false,
    fill_ms       integer CONSTRAINT trial_part_fill_counts CHECK (fill_ms >= 0),
    proof_ms      integer CONSTRAINT trial_part_proof_counts CHECK (proof_ms >= 0),
    digests       bytea,
    problem       text NOT NULL DEFAULT '',
    detail        text NOT NULL DEFAULT '',
    -- what was found
    gflops        double precision NOT NULL DEFAULT 0 CONSTRAINT trial_part_gflops_finite CHECK (gflops >= 0 AND gflops < 'Infinity'),
    PRIMARY KEY (trial_id, listing_id),
    CONSTRAINT trial_part_filled_before_proved CHECK (proof_ms IS NULL OR fill_ms IS NOT NULL)
);
CREATE INDEX trial_part_by_listing ON trial_part (listing_id);

-- When a node's next one is due: drawn at random, told to nobody.
CREATE TABLE trial_plan (
    peer_id text PRIMARY KEY CONSTRAINT trial_plan_node_fk REFERENCES node (peer_id),
    next_ms bigint NOT NULL
);
CREATE INDEX trial_plan_next ON trial_plan (next_ms);
