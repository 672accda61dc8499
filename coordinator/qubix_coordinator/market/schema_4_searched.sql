-- SPDX-License-Identifier: Apache-2.0
-- What the market is searched by beside the device itself. 0 and '' say that nothing is known.

ALTER TABLE listing
    -- claimed by the node
    ADD COLUMN cpu_cores integer NOT NULL DEFAULT 0 CONSTRAINT listing_cpu_cores_bounded CHECK (cpu_cores BETWEEN 0 AND 4096),
    ADD COLUMN cpu_memory_bytes bigint NOT NULL DEFAULT 0
        CONSTRAINT listing_cpu_memory_not_negative CHECK (cpu_memory_bytes >= 0),
    ADD COLUMN disk_free_bytes bigint NOT NULL DEFAULT 0
        CONSTRAINT listing_disk_not_negative CHECK (disk_free_bytes >= 0),
    ADD COLUMN inet_down_bytes_per_s bigint NOT NULL DEFAULT 0
        CONSTRAINT listing_inet_down_not_negative CHECK (inet_down_bytes_per_s >= 0),
    ADD COLUMN inet_up_bytes_per_s bigint NOT NULL DEFAULT 0
        CONSTRAINT listing_inet_up_not_negative CHECK (inet_up_bytes_per_s >= 0),
    ADD COLUMN notice_s integer NOT NULL DEFAULT 0 CONSTRAINT listing_notice_not_negative CHECK (notice_s >= 0),
    -- seen and decided by the coordinator
    ADD COLUMN country text NOT NULL DEFAULT '' CONSTRAINT listing_country_is_iso CHECK (country ~ '^([A-Z]{2})?$'),
    ADD COLUMN country_seen boolean NOT NULL DEFAULT false,
    ADD COLUMN devices_alike integer NOT NULL DEFAULT 1
        CONSTRAINT listing_devices_alike_counts CHECK (devices_alike BETWEEN 1 AND 64),
    ADD COLUMN score double precision NOT NULL DEFAULT 0
        CONSTRAINT listing_score_finite CHECK (score >= 0 AND score < 'Infinity'),
    ADD COLUMN reliability double precision NOT NULL DEFAULT 0
        CONSTRAINT listing_reliability_is_share CHECK (reliability BETWEEN 0 AND 1),
    ADD COLUMN listed_ms bigint NOT NULL DEFAULT 0;

UPDATE listing SET listed_ms = updated_ms;
