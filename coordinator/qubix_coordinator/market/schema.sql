-- SPDX-License-Identifier: Apache-2.0
-- One row per device of a node, however often it is offered. What the node claims and what the coordinator has seen of
-- it stand in separate columns (style.md 6).

CREATE TABLE listing (
    id                 uuid PRIMARY KEY,
    peer_id            text NOT NULL CONSTRAINT listing_node_fk REFERENCES node (peer_id),
    device_id          text NOT NULL CONSTRAINT listing_device_bounded CHECK (length(device_id) BETWEEN 1 AND 200),
    -- claimed by the node
    kind               text NOT NULL CONSTRAINT listing_kind_known CHECK (kind IN ('cuda', 'cpu', 'webgpu')),
    model              text NOT NULL,
    memory_bytes       bigint NOT NULL CONSTRAINT listing_memory_not_negative CHECK (memory_bytes >= 0),
    cores              bigint NOT NULL CONSTRAINT listing_cores_not_negative CHECK (cores >= 0),
    driver             text NOT NULL,
    cuda               text NOT NULL,
    compute_capability text NOT NULL,
    backends           text[] NOT NULL,
    rate_qu_per_h      bigint NOT NULL CONSTRAINT listing_rate_bounded CHECK (rate_qu_per_h BETWEEN 0 AND 1000000000000),
    region             text NOT NULL,
    availability       text NOT NULL
                       CONSTRAINT listing_availability_known CHECK (availability IN ('available', 'busy', 'draining', 'offline')),
    rates              jsonb NOT NULL,
    jobs_parallel      integer NOT NULL CONSTRAINT listing_jobs_parallel_bounded CHECK (jobs_parallel BETWEEN 1 AND 64),
    metrics            jsonb,
    -- the evidence
    offer_digest       bytea NOT NULL CONSTRAINT listing_offer_digest_is_sha256 CHECK (octet_length(offer_digest) = 32),
    offer_raw          bytea NOT NULL,
    -- seen and decided by the coordinator
    online             boolean NOT NULL DEFAULT true,
    verified           boolean NOT NULL DEFAULT false,
    jobs_accepted      integer NOT NULL DEFAULT 0 CONSTRAINT listing_accepted_counts CHECK (jobs_accepted >= 0),
    jobs_rejected      integer NOT NULL DEFAULT 0 CONSTRAINT listing_rejected_counts CHECK (jobs_rejected >= 0),
    failures           integer NOT NULL DEFAULT 0 CONSTRAINT listing_failures_counts CHECK (failures >= 0),
    backoff_until_ms   bigint NOT NULL DEFAULT 0,
    metrics_ms         bigint,
    offered_ms         bigint NOT NULL,
    updated_ms         bigint NOT NULL,
    CONSTRAINT listing_one_per_device UNIQUE (peer_id, device_id)
);
CREATE INDEX listing_fresh ON listing (offered_ms) WHERE online;
