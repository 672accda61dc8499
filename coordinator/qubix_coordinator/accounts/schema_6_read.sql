-- SPDX-License-Identifier: Apache-2.0
-- A token may only look; and one that somebody made by hand may have an end, too, without being a session.

ALTER TABLE api_token
    DROP CONSTRAINT api_token_scopes_known,
    ADD CONSTRAINT api_token_scopes_known CHECK (scopes <@ ARRAY['user', 'read', 'operator', 'gateway', 'arbiter']),
    DROP CONSTRAINT api_token_scopes_some,
    ADD CONSTRAINT api_token_scopes_some CHECK (cardinality(scopes) BETWEEN 1 AND 5),
    ADD COLUMN made_by_hand boolean NOT NULL DEFAULT false;
UPDATE api_token SET made_by_hand = true WHERE expires_at IS NULL;
