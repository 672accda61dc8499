-- SPDX-License-Identifier: Apache-2.0
-- What stands between a job and the provider's machine, as the node says. Offers from before said nothing.

ALTER TABLE listing ADD COLUMN isolation text NOT NULL DEFAULT 'limited'
    CONSTRAINT listing_isolation_known CHECK (isolation IN ('box', 'limited'));
