-- SPDX-License-Identifier: Apache-2.0
-- Self-tests as nodes report them: claims, kept with the time at which they were heard.

CREATE TABLE self_test (
    id        uuid PRIMARY KEY,
    peer_id   text NOT NULL CONSTRAINT self_test_node_fk REFERENCES node (peer_id),
    device_id text NOT NULL CONSTRAINT self_test_device_bounded CHECK (length(device_id) BETWEEN 1 AND 200),
    at_ms     bigint NOT NULL,
    heard_ms  bigint NOT NULL,
    took_ms   bigint NOT NULL CONSTRAINT self_test_took_counts CHECK (took_ms >= 0),
    quick     boolean NOT NULL,
    whole     boolean NOT NULL CONSTRAINT self_test_whole_is_not_quick CHECK (NOT (whole AND quick)),
    passed    boolean NOT NULL,
    checks    jsonb NOT NULL CONSTRAINT self_test_checks_listed CHECK (jsonb_typeof(checks) = 'array')
);
CREATE INDEX self_test_newest ON self_test (peer_id, device_id, heard_ms DESC);

-- When somebody last asked for one.
CREATE TABLE self_test_ask (
    peer_id   text NOT NULL CONSTRAINT self_test_ask_node_fk REFERENCES node (peer_id),
    device_id text NOT NULL CONSTRAINT self_test_ask_device_bounded CHECK (length(device_id) BETWEEN 1 AND 200),
    asked_ms  bigint NOT NULL,
    PRIMARY KEY (peer_id, device_id)
);

-- Test artifacts of nodes, until they are removed: a row is the permission to send and to read one.
CREATE TABLE probe (
    peer_id    text NOT NULL CONSTRAINT probe_node_fk REFERENCES node (peer_id),
    digest     bytea NOT NULL CONSTRAINT probe_digest_is_sha256 CHECK (octet_length(digest) = 32),
    account_id uuid NOT NULL CONSTRAINT probe_account_fk REFERENCES account (id),
    size_bytes bigint NOT NULL CONSTRAINT probe_size_bounded CHECK (size_bytes BETWEEN 1 AND 4194304),
    began_ms   bigint NOT NULL,
    PRIMARY KEY (peer_id, digest)
);
CREATE INDEX probe_age ON probe (began_ms);
