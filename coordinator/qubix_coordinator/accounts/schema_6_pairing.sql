-- SPDX-License-Identifier: Apache-2.0
-- Pairing codes: an account's wish that the node which brings the code becomes its own, once the node's fingerprint was
-- confirmed (trust.md A2).

CREATE TABLE pairing (
    id         uuid PRIMARY KEY,
    digest     bytea NOT NULL CONSTRAINT pairing_digest_unique UNIQUE
               CONSTRAINT pairing_digest_is_sha256 CHECK (octet_length(digest) = 32),
    account_id uuid NOT NULL CONSTRAINT pairing_account_fk REFERENCES account (id),
    name       text NOT NULL CONSTRAINT pairing_name_bounded CHECK (length(name) BETWEEN 1 AND 100),
    state      text NOT NULL
               CONSTRAINT pairing_state_known CHECK (state IN ('waiting', 'seen', 'confirmed', 'refused', 'expired')),
    made_ms    bigint NOT NULL,
    due_ms     bigint CONSTRAINT pairing_due_later CHECK (due_ms > made_ms),
    peer_id    text CONSTRAINT pairing_node_fk REFERENCES node (peer_id),
    seen_ms    bigint,
    ended_ms   bigint,
    others     int NOT NULL DEFAULT 0 CONSTRAINT pairing_others_count CHECK (others >= 0),
    CONSTRAINT pairing_due_while_open CHECK ((state IN ('waiting', 'seen')) = (due_ms IS NOT NULL)),
    CONSTRAINT pairing_ended_when_over CHECK ((state IN ('waiting', 'seen')) = (ended_ms IS NULL)),
    CONSTRAINT pairing_seen_with_its_node CHECK ((peer_id IS NULL) = (seen_ms IS NULL)),
    CONSTRAINT pairing_waits_for_nobody_known CHECK (state <> 'waiting' OR peer_id IS NULL),
    CONSTRAINT pairing_confirms_a_node CHECK (state NOT IN ('seen', 'confirmed') OR peer_id IS NOT NULL)
);
CREATE INDEX pairing_by_account ON pairing (account_id, made_ms DESC);
CREATE INDEX pairing_by_node ON pairing (peer_id) WHERE peer_id IS NOT NULL;
CREATE INDEX pairing_due ON pairing (due_ms) WHERE due_ms IS NOT NULL;
