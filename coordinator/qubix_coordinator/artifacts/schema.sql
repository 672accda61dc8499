-- SPDX-License-Identifier: Apache-2.0
-- What is stored for whom. One row per account and digest: what another account stored is never visible here (trust D1).

CREATE TABLE artifact (
    id           uuid PRIMARY KEY,
    account_id   uuid NOT NULL CONSTRAINT artifact_account_fk REFERENCES account (id),
    digest       bytea NOT NULL CONSTRAINT artifact_digest_is_sha256 CHECK (octet_length(digest) = 32),
    size_bytes   bigint NOT NULL CONSTRAINT artifact_size_bounded CHECK (size_bytes BETWEEN 1 AND 8589934592),
    -- who announced it: the account itself (counts to its quota), or an attempt at one of its jobs
    origin       text NOT NULL CONSTRAINT artifact_origin_known CHECK (origin IN ('owner', 'attempt')),
    -- an attempt's output becomes readable to its owner when it is paid (trust M3)
    readable     boolean NOT NULL DEFAULT false,
    -- dtype and shape of a .npy file, null for anything else
    meta         jsonb CONSTRAINT artifact_meta_is_object CHECK (jsonb_typeof(meta) = 'object'),
    announced_at timestamptz NOT NULL DEFAULT now(),
    stored_at    timestamptz,
    CONSTRAINT artifact_once UNIQUE (account_id, digest),
    CONSTRAINT artifact_readable_once_stored CHECK (NOT readable OR stored_at IS NOT NULL),
    CONSTRAINT artifact_meta_once_stored CHECK (meta IS NULL OR stored_at IS NOT NULL)
);
CREATE INDEX artifact_unfinished ON artifact (announced_at) WHERE stored_at IS NULL;
CREATE INDEX artifact_age ON artifact (announced_at) WHERE stored_at IS NOT NULL;

-- Which attempt announced and sent which output. That the account stores the same content already is no proof of work,
-- and an upload must not tell an attempt what else is stored (trust D1).
CREATE TABLE artifact_writer (
    writer      text NOT NULL CONSTRAINT artifact_writer_bounded CHECK (length(writer) BETWEEN 1 AND 100),
    artifact_id uuid NOT NULL CONSTRAINT artifact_writer_artifact_fk REFERENCES artifact (id) ON DELETE CASCADE,
    size_bytes  bigint NOT NULL CONSTRAINT artifact_writer_size_positive CHECK (size_bytes > 0),
    complete    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (writer, artifact_id)
);
CREATE INDEX artifact_writer_by_artifact ON artifact_writer (artifact_id);
