-- SPDX-License-Identifier: Apache-2.0
-- Where nodes can come in, at whichever replica: each coordinator says every few seconds which gateways it is linked with.

CREATE TABLE gateway (
    peer_id   text PRIMARY KEY CONSTRAINT gateway_peer_bounded CHECK (length(peer_id) BETWEEN 1 AND 128),
    addresses text[] NOT NULL CONSTRAINT gateway_addresses_bounded CHECK (cardinality(addresses) <= 16),
    seen_at   timestamptz NOT NULL DEFAULT now()
);
