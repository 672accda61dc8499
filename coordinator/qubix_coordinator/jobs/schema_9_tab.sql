-- SPDX-License-Identifier: Apache-2.0
-- Providers that say that they go, and settlements told again to those that were away.

ALTER TABLE attempt
    -- its provider said that it goes, and has not spoken since: what falls due is a handing back
    ADD COLUMN leaving boolean NOT NULL DEFAULT false,
    -- when `settlement_raw` was signed
    ADD COLUMN settled_ms bigint;

UPDATE attempt SET settled_ms = coalesce(ended_ms, created_ms) WHERE settlement_raw IS NOT NULL;
ALTER TABLE attempt ADD CONSTRAINT attempt_settled_when_signed
    CHECK ((settled_ms IS NULL) = (settlement_raw IS NULL));
CREATE INDEX attempt_settled ON attempt (peer_id, settled_ms, id) WHERE settled_ms IS NOT NULL;
