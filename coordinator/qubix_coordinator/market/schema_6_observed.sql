-- SPDX-License-Identifier: Apache-2.0
-- How fast accepted work was, in what a score counts: float32 matrix products, by the time that was billed for them.

CREATE TABLE listing_observed (
    attempt_id uuid PRIMARY KEY,
    listing_id uuid NOT NULL CONSTRAINT listing_observed_fk REFERENCES listing (id),
    gflops     double precision NOT NULL
               CONSTRAINT listing_observed_finite CHECK (gflops > 0 AND gflops < 'Infinity'),
    at_ms      bigint NOT NULL
);
CREATE INDEX listing_observed_newest ON listing_observed (listing_id, at_ms DESC);
