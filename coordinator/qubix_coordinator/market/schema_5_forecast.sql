-- SPDX-License-Identifier: Apache-2.0
-- What past runs say of a device's next one: for each device, kernel, back end and size of work the newest runs, as the
-- logarithm of actual over forecast time, and their quantiles. One row each, written in the settlement's transaction.

CREATE TABLE forecast_fit (
    -- the kernel; with a digest behind it where each job describes its own work
    subject     text NOT NULL CONSTRAINT forecast_fit_subject_bounded CHECK (length(subject) BETWEEN 1 AND 120),
    listing_id  uuid NOT NULL CONSTRAINT forecast_fit_listing_fk REFERENCES listing (id),
    backend     text NOT NULL CONSTRAINT forecast_fit_backend_bounded CHECK (length(backend) BETWEEN 1 AND 64),
    size        smallint NOT NULL CONSTRAINT forecast_fit_size_known CHECK (size BETWEEN 0 AND 16),
    -- what the device claimed of its pace when it was kept
    pace        double precision NOT NULL CONSTRAINT forecast_fit_pace_finite
                CHECK (pace >= 0 AND pace < 'Infinity'::double precision),
    runs        double precision[] NOT NULL CONSTRAINT forecast_fit_runs_bounded CHECK (cardinality(runs) BETWEEN 1 AND 32),
    arounds     double precision[] NOT NULL CONSTRAINT forecast_fit_arounds_bounded CHECK (cardinality(arounds) <= 32),
    run_fit     double precision[] NOT NULL CONSTRAINT forecast_fit_run_is_three CHECK (cardinality(run_fit) = 3),
    around_fit  double precision[] NOT NULL CONSTRAINT forecast_fit_around_is_three CHECK (cardinality(around_fit) = 3),
    updated_ms  bigint NOT NULL,
    PRIMARY KEY (subject, listing_id, backend, size)
);
CREATE INDEX forecast_fit_by_age ON forecast_fit (updated_ms);
