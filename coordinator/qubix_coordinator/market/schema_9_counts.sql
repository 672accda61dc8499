-- SPDX-License-Identifier: Apache-2.0
-- How many outcomes of each kind a listing has: a page shows them, and does not count all of them for that. Kept by
-- whoever records an outcome, under the listing's lock.

CREATE TABLE outcome_count (
    listing_id uuid NOT NULL CONSTRAINT outcome_count_listing_fk REFERENCES listing (id),
    -- 'related': good work for somebody related to the provider, which proves nothing
    what       text NOT NULL,
    n          bigint NOT NULL CONSTRAINT outcome_count_positive CHECK (n > 0),
    PRIMARY KEY (listing_id, what)
) WITH (fillfactor = 70);

INSERT INTO outcome_count (listing_id, what, n)
    SELECT listing_id, CASE WHEN counts THEN what ELSE 'related' END, count(*) FROM work_outcome
     WHERE counts OR what IN ('finished', 'right') GROUP BY 1, 2;
