-- SPDX-License-Identifier: Apache-2.0
-- Published proofs of reserves (trust.md M10). What was published stays; the leaves, which say who had what, stay as long as
-- somebody may ask for their path in the newest ones.

CREATE TABLE reserves (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms     bigint NOT NULL,
    statement bytea NOT NULL,
    -- what order and padding of the tree follow from
    secret    bytea NOT NULL CONSTRAINT reserves_secret_has_32_bytes CHECK (octet_length(secret) = 32)
);
CREATE TRIGGER reserves_append_only BEFORE UPDATE OR DELETE ON reserves
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE reserves_leaf (
    reserves_id bigint NOT NULL CONSTRAINT reserves_leaf_reserves_fk REFERENCES reserves (id),
    no          integer NOT NULL CONSTRAINT reserves_leaf_counts CHECK (no >= 0),
    -- an account's id, or `fees` or `fund`: the market's own
    owner       text NOT NULL,
    amount_qu   bigint NOT NULL CONSTRAINT reserves_leaf_not_negative CHECK (amount_qu >= 0),
    salt        bytea NOT NULL CONSTRAINT reserves_leaf_salt_has_32_bytes CHECK (octet_length(salt) = 32),
    PRIMARY KEY (reserves_id, no),
    CONSTRAINT reserves_leaf_once UNIQUE (reserves_id, owner)
);
CREATE TRIGGER reserves_leaf_append_only BEFORE UPDATE ON reserves_leaf
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
