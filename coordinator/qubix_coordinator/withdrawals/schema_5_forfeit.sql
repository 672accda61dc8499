-- SPDX-License-Identifier: Apache-2.0
-- New earnings that a failed check has taken (trust.md C5): how much, for what, and out of which settlements, so that
-- none of them is taken or held back twice.

CREATE TABLE forfeit (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL CONSTRAINT forfeit_account_fk REFERENCES account (id),
    attempt_id uuid NOT NULL CONSTRAINT forfeit_attempt_fk REFERENCES attempt (id),
    reason     text NOT NULL,
    -- what was new; and what of it was still there to be taken
    new_qu     bigint NOT NULL CONSTRAINT forfeit_new_not_negative CHECK (new_qu >= 0),
    amount_qu  bigint NOT NULL CONSTRAINT forfeit_amount_within_new CHECK (amount_qu BETWEEN 0 AND new_qu),
    at_ms      bigint NOT NULL
);
CREATE INDEX forfeit_by_account ON forfeit (account_id, at_ms);
CREATE TRIGGER forfeit_append_only BEFORE UPDATE OR DELETE ON forfeit FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE forfeited (
    account_id  uuid NOT NULL,
    transfer_id uuid NOT NULL CONSTRAINT forfeited_transfer_fk REFERENCES transfer (id),
    forfeit_id  uuid NOT NULL CONSTRAINT forfeited_forfeit_fk REFERENCES forfeit (id),
    PRIMARY KEY (account_id, transfer_id)
);
CREATE TRIGGER forfeited_append_only BEFORE UPDATE OR DELETE ON forfeited
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
