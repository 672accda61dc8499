-- SPDX-License-Identifier: Apache-2.0
-- Accounts, what proves that somebody speaks for one (keys, tokens), and enrolled nodes.

CREATE TABLE account (
    id         uuid PRIMARY KEY,
    kind       text NOT NULL CONSTRAINT account_kind_known CHECK (kind IN ('user', 'provider', 'operator', 'service')),
    name       text NOT NULL CONSTRAINT account_name_bounded CHECK (length(name) BETWEEN 1 AND 100),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE account_key (
    public_key bytea PRIMARY KEY CONSTRAINT account_key_is_ed25519 CHECK (octet_length(public_key) = 32),
    account_id uuid NOT NULL CONSTRAINT account_key_account_fk REFERENCES account (id),
    purpose    text NOT NULL CONSTRAINT account_key_purpose_known CHECK (purpose IN ('order', 'node', 'wallet')),
    created_at timestamptz NOT NULL DEFAULT now()
);
-- One key signs an account's orders; another later is refused (trust.md M6).
CREATE UNIQUE INDEX account_key_one_order_key ON account_key (account_id) WHERE purpose = 'order';
CREATE INDEX account_key_by_account ON account_key (account_id);

CREATE TABLE api_token (
    id           uuid PRIMARY KEY,
    digest       bytea NOT NULL CONSTRAINT api_token_digest_unique UNIQUE
                 CONSTRAINT api_token_digest_is_sha256 CHECK (octet_length(digest) = 32),
    account_id   uuid NOT NULL CONSTRAINT api_token_account_fk REFERENCES account (id),
    name         text NOT NULL CONSTRAINT api_token_name_bounded CHECK (length(name) BETWEEN 1 AND 100),
    scopes       text[] NOT NULL
                 CONSTRAINT api_token_scopes_known CHECK (scopes <@ ARRAY['user', 'operator', 'gateway'])
                 CONSTRAINT api_token_scopes_some CHECK (cardinality(scopes) BETWEEN 1 AND 3),
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX api_token_by_account ON api_token (account_id);

CREATE TABLE node (
    peer_id      text PRIMARY KEY CONSTRAINT node_peer_id_bounded CHECK (length(peer_id) BETWEEN 8 AND 128),
    public_key   bytea NOT NULL CONSTRAINT node_key_unique UNIQUE
                 CONSTRAINT node_key_fk REFERENCES account_key (public_key),
    account_id   uuid NOT NULL CONSTRAINT node_account_fk REFERENCES account (id),
    incarnation  bigint NOT NULL DEFAULT 0 CONSTRAINT node_incarnation_counts CHECK (incarnation >= 0),
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX node_by_account ON node (account_id);
