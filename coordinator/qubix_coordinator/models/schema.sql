-- SPDX-License-Identifier: Apache-2.0
-- Questions about models, and what a verifier process found in its box. Of one account each, like its artifacts: what
-- another account had described is never seen here (trust D1).

CREATE TABLE model_description (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL CONSTRAINT model_description_account_fk REFERENCES account (id),
    digest     bytea NOT NULL CONSTRAINT model_description_digest_is_sha256 CHECK (octet_length(digest) = 32),
    -- what was asked, and its SHA-256: the same question has one row
    question   jsonb NOT NULL CONSTRAINT model_description_question_is_object CHECK (jsonb_typeof(question) = 'object'),
    asked      bytea NOT NULL CONSTRAINT model_description_asked_is_sha256 CHECK (octet_length(asked) = 32),
    state      text NOT NULL CONSTRAINT model_description_state_known CHECK
                   (state IN ('waiting', 'described', 'declared', 'refused', 'failed')),
    asked_ms   bigint NOT NULL,
    -- when a question that nobody has answered is given up
    due_ms     bigint NOT NULL,
    claimed_by text CONSTRAINT model_description_claimed_bounded CHECK (length(claimed_by) <= 300),
    answer     jsonb CONSTRAINT model_description_answer_is_object CHECK (jsonb_typeof(answer) = 'object'),
    took_ms    bigint NOT NULL DEFAULT 0 CONSTRAINT model_description_took_not_negative CHECK (took_ms >= 0),
    CONSTRAINT model_description_once UNIQUE (account_id, asked),
    CONSTRAINT model_description_answered_when_over CHECK ((answer IS NULL) = (state = 'waiting')),
    CONSTRAINT model_description_due_after_asked CHECK (due_ms > asked_ms)
);
CREATE INDEX model_description_waiting ON model_description (asked_ms) WHERE state = 'waiting';
CREATE INDEX model_description_age ON model_description (account_id, asked_ms);
