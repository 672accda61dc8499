-- SPDX-License-Identifier: Apache-2.0
-- How far a device's newest runs of whatever kernel were off what its history said: its state of the hour.

CREATE TABLE forecast_lately (
    listing_id uuid PRIMARY KEY CONSTRAINT forecast_lately_listing_fk REFERENCES listing (id),
    runs       double precision[] NOT NULL CONSTRAINT forecast_lately_runs_bounded CHECK (cardinality(runs) BETWEEN 1 AND 5),
    arounds    double precision[] NOT NULL CONSTRAINT forecast_lately_arounds_bounded CHECK (cardinality(arounds) <= 5),
    updated_ms bigint NOT NULL
);
CREATE INDEX forecast_lately_by_age ON forecast_lately (updated_ms);
