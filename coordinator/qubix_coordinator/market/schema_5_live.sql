-- SPDX-License-Identifier: Apache-2.0
-- What becomes true by time alone is told once: the offer and the reading of which it was said that they are too old.
-- A newer offer or reading differs from them, so whoever writes one need not know of these columns.

ALTER TABLE listing
    ADD COLUMN expired_told_ms bigint,
    ADD COLUMN stale_told_ms bigint;
CREATE INDEX listing_expiry_due ON listing (offered_ms) WHERE online AND expired_told_ms IS DISTINCT FROM offered_ms;
CREATE INDEX listing_stale_due ON listing (metrics_ms) WHERE online AND stale_told_ms IS DISTINCT FROM metrics_ms;
