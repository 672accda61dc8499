-- SPDX-License-Identifier: Apache-2.0
-- Readings by the minute and by the hour, kept for longer than samples, each in partitions of its own.
--
--   sample_touched  what is to be summed up (again): written with the samples, in their transaction. Rows are only added
--                   and taken away, never changed, so that nobody waits for anybody and no sample is overlooked
--   sample_minute   sums of samples, always made anew from all that are there: to make them twice changes nothing
--   sample_hour     sums of minutes
--   listing_change  price and availability of a listing from at_ms on; of several changes in one minute, the last

CREATE TABLE sample_touched (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    span_s  integer NOT NULL CONSTRAINT sample_touched_span_known CHECK (span_s IN (60, 3600)),
    start_s bigint NOT NULL CONSTRAINT sample_touched_starts_on_its_span CHECK (start_s % span_s = 0),
    devices bigint[] NOT NULL CONSTRAINT sample_touched_devices_some CHECK (cardinality(devices) > 0)
);
CREATE INDEX sample_touched_due ON sample_touched (span_s, start_s);

CREATE TABLE sample_minute (
    device_no bigint NOT NULL CONSTRAINT sample_minute_device_fk REFERENCES sample_device (no),
    start_s   bigint NOT NULL CONSTRAINT sample_minute_starts_on_the_minute CHECK (start_s % 60 = 0),
    samples   integer NOT NULL CONSTRAINT sample_minute_of_samples CHECK (samples > 0),
    utilisation_pct_n    integer NOT NULL,
    utilisation_pct_min  double precision,
    utilisation_pct_sum  double precision NOT NULL,
    utilisation_pct_max  double precision,
    utilisation_pct_last double precision,
    temperature_c_n    integer NOT NULL,
    temperature_c_min  double precision,
    temperature_c_sum  double precision NOT NULL,
    temperature_c_max  double precision,
    temperature_c_last double precision,
    memory_used_bytes_n    integer NOT NULL,
    memory_used_bytes_min  double precision,
    memory_used_bytes_sum  double precision NOT NULL,
    memory_used_bytes_max  double precision,
    memory_used_bytes_last double precision,
    power_mw_n    integer NOT NULL,
    power_mw_min  double precision,
    power_mw_sum  double precision NOT NULL,
    power_mw_max  double precision,
    power_mw_last double precision,
    clock_mhz_n    integer NOT NULL,
    clock_mhz_min  double precision,
    clock_mhz_sum  double precision NOT NULL,
    clock_mhz_max  double precision,
    clock_mhz_last double precision,
    memory_total_bytes bigint,
    -- samples that tell what lowers the clock, and those of them in which something does (being idle is no fault)
    throttle_n  integer NOT NULL,
    throttled_n integer NOT NULL CONSTRAINT sample_minute_throttled_bounded CHECK (throttled_n BETWEEN 0 AND throttle_n),
    CONSTRAINT sample_minute_utilisation_pct_told CHECK (CASE WHEN utilisation_pct_n = 0 THEN utilisation_pct_sum = 0 AND num_nonnulls(utilisation_pct_min, utilisation_pct_max, utilisation_pct_last) = 0
        ELSE num_nulls(utilisation_pct_min, utilisation_pct_max, utilisation_pct_last) = 0 AND utilisation_pct_min <= utilisation_pct_last AND utilisation_pct_last <= utilisation_pct_max END),
    CONSTRAINT sample_minute_temperature_c_told CHECK (CASE WHEN temperature_c_n = 0 THEN temperature_c_sum = 0 AND num_nonnulls(temperature_c_min, temperature_c_max, temperature_c_last) = 0
        ELSE num_nulls(temperature_c_min, temperature_c_max, temperature_c_last) = 0 AND temperature_c_min <= temperature_c_last AND temperature_c_last <= temperature_c_max END),
    CONSTRAINT sample_minute_memory_used_bytes_told CHECK (CASE WHEN memory_used_bytes_n = 0 THEN memory_used_bytes_sum = 0 AND num_nonnulls(memory_used_bytes_min, memory_used_bytes_max, memory_used_bytes_last) = 0
        ELSE num_nulls(memory_used_bytes_min, memory_used_bytes_max, memory_used_bytes_last) = 0 AND memory_used_bytes_min <= memory_used_bytes_last AND memory_used_bytes_last <= memory_used_bytes_max END),
    CONSTRAINT sample_minute_power_mw_told CHECK (CASE WHEN power_mw_n = 0 THEN power_mw_sum = 0 AND num_nonnulls(power_mw_min, power_mw_max, power_mw_last) = 0
        ELSE num_nulls(power_mw_min, power_mw_max, power_mw_last) = 0 AND power_mw_min <= power_mw_last AND power_mw_last <= power_mw_max END),
    CONSTRAINT sample_minute_clock_mhz_told CHECK (CASE WHEN clock_mhz_n = 0 THEN clock_mhz_sum = 0 AND num_nonnulls(clock_mhz_min, clock_mhz_max, clock_mhz_last) = 0
        ELSE num_nulls(clock_mhz_min, clock_mhz_max, clock_mhz_last) = 0 AND clock_mhz_min <= clock_mhz_last AND clock_mhz_last <= clock_mhz_max END),
    PRIMARY KEY (device_no, start_s)
) PARTITION BY RANGE (start_s);

CREATE TABLE sample_hour (
    device_no bigint NOT NULL CONSTRAINT sample_hour_device_fk REFERENCES sample_device (no),
    start_s   bigint NOT NULL CONSTRAINT sample_hour_starts_on_the_hour CHECK (start_s % 3600 = 0),
    samples   integer NOT NULL CONSTRAINT sample_hour_of_samples CHECK (samples > 0),
    utilisation_pct_n    integer NOT NULL,
    utilisation_pct_min  double precision,
    utilisation_pct_sum  double precision NOT NULL,
    utilisation_pct_max  double precision,
    utilisation_pct_last double precision,
    temperature_c_n    integer NOT NULL,
    temperature_c_min  double precision,
    temperature_c_sum  double precision NOT NULL,
    temperature_c_max  double precision,
    temperature_c_last double precision,
    memory_used_bytes_n    integer NOT NULL,
    memory_used_bytes_min  double precision,
    memory_used_bytes_sum  double precision NOT NULL,
    memory_used_bytes_max  double precision,
    memory_used_bytes_last double precision,
    power_mw_n    integer NOT NULL,
    power_mw_min  double precision,
    power_mw_sum  double precision NOT NULL,
    power_mw_max  double precision,
    power_mw_last double precision,
    clock_mhz_n    integer NOT NULL,
    clock_mhz_min  double precision,
    clock_mhz_sum  double precision NOT NULL,
    clock_mhz_max  double precision,
    clock_mhz_last double precision,
    memory_total_bytes bigint,
    -- samples that tell what lowers the clock, and those of them in which something does (being idle is no fault)
    throttle_n  integer NOT NULL,
    throttled_n integer NOT NULL CONSTRAINT sample_hour_throttled_bounded CHECK (throttled_n BETWEEN 0 AND throttle_n),
    CONSTRAINT sample_hour_utilisation_pct_told CHECK (CASE WHEN utilisation_pct_n = 0 THEN utilisation_pct_sum = 0 AND num_nonnulls(utilisation_pct_min, utilisation_pct_max, utilisation_pct_last) = 0
        ELSE num_nulls(utilisation_pct_min, utilisation_pct_max, utilisation_pct_last) = 0 AND utilisation_pct_min <= utilisation_pct_last AND utilisation_pct_last <= utilisation_pct_max END),
    CONSTRAINT sample_hour_temperature_c_told CHECK (CASE WHEN temperature_c_n = 0 THEN temperature_c_sum = 0 AND num_nonnulls(temperature_c_min, temperature_c_max, temperature_c_last) = 0
        ELSE num_nulls(temperature_c_min, temperature_c_max, temperature_c_last) = 0 AND temperature_c_min <= temperature_c_last AND temperature_c_last <= temperature_c_max END),
    CONSTRAINT sample_hour_memory_used_bytes_told CHECK (CASE WHEN memory_used_bytes_n = 0 THEN memory_used_bytes_sum = 0 AND num_nonnulls(memory_used_bytes_min, memory_used_bytes_max, memory_used_bytes_last) = 0
        ELSE num_nulls(memory_used_bytes_min, memory_used_bytes_max, memory_used_bytes_last) = 0 AND memory_used_bytes_min <= memory_used_bytes_last AND memory_used_bytes_last <= memory_used_bytes_max END),
    CONSTRAINT sample_hour_power_mw_told CHECK (CASE WHEN power_mw_n = 0 THEN power_mw_sum = 0 AND num_nonnulls(power_mw_min, power_mw_max, power_mw_last) = 0
        ELSE num_nulls(power_mw_min, power_mw_max, power_mw_last) = 0 AND power_mw_min <= power_mw_last AND power_mw_last <= power_mw_max END),
    CONSTRAINT sample_hour_clock_mhz_told CHECK (CASE WHEN clock_mhz_n = 0 THEN clock_mhz_sum = 0 AND num_nonnulls(clock_mhz_min, clock_mhz_max, clock_mhz_last) = 0
        ELSE num_nulls(clock_mhz_min, clock_mhz_max, clock_mhz_last) = 0 AND clock_mhz_min <= clock_mhz_last AND clock_mhz_last <= clock_mhz_max END),
    PRIMARY KEY (device_no, start_s)
) PARTITION BY RANGE (start_s);

INSERT INTO sample_touched (span_s, start_s, devices)
    SELECT 60, at_s / 60 * 60, array_agg(DISTINCT device_no) FROM sample GROUP BY 2;

CREATE TABLE listing_change (
    listing_no    bigint NOT NULL CONSTRAINT listing_change_listing_fk REFERENCES listing (no),
    minute        bigint NOT NULL,
    at_ms         bigint NOT NULL CONSTRAINT listing_change_in_its_minute CHECK (at_ms / 60000 = minute),
    rate_qu_per_h bigint NOT NULL,
    availability  text NOT NULL CONSTRAINT listing_change_availability_known
                  CHECK (availability IN ('available', 'busy', 'rented', 'draining', 'offline')),
    PRIMARY KEY (listing_no, minute)
);

CREATE FUNCTION listing_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    at bigint := GREATEST(NEW.updated_ms, NEW.offered_ms);
BEGIN
    INSERT INTO listing_change AS c (listing_no, minute, at_ms, rate_qu_per_h, availability)
        VALUES (NEW.no, at / 60000, at, NEW.rate_qu_per_h,
            CASE WHEN NOT NEW.online THEN 'offline' WHEN NEW.rental_id IS NOT NULL THEN 'rented' ELSE NEW.availability END)
        ON CONFLICT (listing_no, minute) DO UPDATE
            SET at_ms = GREATEST(c.at_ms, excluded.at_ms), rate_qu_per_h = excluded.rate_qu_per_h,
                availability = excluded.availability;
    RETURN NULL;
END $$;
CREATE TRIGGER listing_listed AFTER INSERT ON listing FOR EACH ROW EXECUTE FUNCTION listing_changed();
CREATE TRIGGER listing_changed AFTER UPDATE ON listing FOR EACH ROW
    WHEN ((NEW.rate_qu_per_h, NEW.availability, NEW.online, NEW.rental_id)
        IS DISTINCT FROM (OLD.rate_qu_per_h, OLD.availability, OLD.online, OLD.rental_id))
    EXECUTE FUNCTION listing_changed();

INSERT INTO listing_change (listing_no, minute, at_ms, rate_qu_per_h, availability)
    SELECT no, updated_ms / 60000, updated_ms, rate_qu_per_h,
           CASE WHEN NOT online THEN 'offline' WHEN rental_id IS NOT NULL THEN 'rented' ELSE availability END FROM listing;
