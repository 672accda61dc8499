-- SPDX-License-Identifier: Apache-2.0
-- Samples in one partition a day: written by COPY, and thrown away by dropping a table (docs/adr/0028).
--
--   sample_device  every listing that has ever told something; numbers are those of listing
--   sample         one reading of a device a second. at_ms is by the coordinator's clock, as the handshake told it to
--                  the node; at_s is its second, which a sample is known by: one that comes twice counts once, in
--                  whichever batch and at whichever replica
--
-- sample itself refers to nothing: its numbers are looked up in sample_device in the transaction that copies, devices
-- are never deleted, and a check of each row would cost more than the row.

CREATE TABLE sample_device (
    no bigint PRIMARY KEY CONSTRAINT sample_device_listing_fk REFERENCES listing (no)
);

ALTER TABLE sample RENAME TO sample_before;
ALTER INDEX sample_pkey RENAME TO sample_before_pkey;

CREATE TABLE sample (
    device_no            bigint NOT NULL,
    at_s                 bigint NOT NULL,
    at_ms                bigint NOT NULL,
    received_ms          bigint NOT NULL,
    utilisation_pct      real CONSTRAINT sample_utilisation_is_percent CHECK (utilisation_pct BETWEEN 0 AND 100),
    memory_used_bytes    bigint CONSTRAINT sample_memory_used_not_negative CHECK (memory_used_bytes >= 0),
    memory_total_bytes   bigint CONSTRAINT sample_memory_total_not_negative CHECK (memory_total_bytes >= 0),
    temperature_c        real,
    power_mw             bigint CONSTRAINT sample_power_not_negative CHECK (power_mw >= 0),
    clock_mhz            bigint CONSTRAINT sample_clock_not_negative CHECK (clock_mhz >= 0),
    memory_busy_pct      real CONSTRAINT sample_memory_busy_is_percent CHECK (memory_busy_pct BETWEEN 0 AND 100),
    memory_clock_mhz     bigint CONSTRAINT sample_memory_clock_not_negative CHECK (memory_clock_mhz >= 0),
    power_limit_mw       bigint CONSTRAINT sample_power_limit_not_negative CHECK (power_limit_mw >= 0),
    fan_pct              real CONSTRAINT sample_fan_is_percent CHECK (fan_pct BETWEEN 0 AND 100),
    throttle             text CONSTRAINT sample_throttle_bounded CHECK (length(throttle) <= 1100),
    pcie_rx_bytes_per_s  bigint CONSTRAINT sample_pcie_rx_not_negative CHECK (pcie_rx_bytes_per_s >= 0),
    pcie_tx_bytes_per_s  bigint CONSTRAINT sample_pcie_tx_not_negative CHECK (pcie_tx_bytes_per_s >= 0),
    processes            bigint CONSTRAINT sample_processes_not_negative CHECK (processes >= 0),
    foreign_processes    bigint CONSTRAINT sample_foreign_not_negative CHECK (foreign_processes >= 0),
    foreign_memory_bytes bigint CONSTRAINT sample_foreign_memory_not_negative CHECK (foreign_memory_bytes >= 0),
    ecc_errors           bigint CONSTRAINT sample_ecc_not_negative CHECK (ecc_errors >= 0),
    retired_pages        bigint CONSTRAINT sample_retired_not_negative CHECK (retired_pages >= 0),
    xid                  bigint CONSTRAINT sample_xid_not_negative CHECK (xid >= 0),
    CONSTRAINT sample_second_of_its_time CHECK (at_ms >= 0 AND at_s = at_ms / 1000),
    PRIMARY KEY (device_no, at_s)
) PARTITION BY RANGE (at_s);

-- What was kept under the old form goes on being shown; there is at most one row of a device a second.
INSERT INTO sample_device (no)
    SELECT DISTINCT l.no FROM sample_before s JOIN listing l USING (peer_id, device_id);
DO $$
DECLARE
    day bigint;
BEGIN
    FOR day IN SELECT DISTINCT at_ms / 86400000 FROM sample_before ORDER BY 1 LOOP
        EXECUTE format('CREATE TABLE sample_p%s PARTITION OF sample FOR VALUES FROM (%s) TO (%s)',
            day, day * 86400, (day + 1) * 86400);
    END LOOP;
END $$;
INSERT INTO sample
    SELECT l.no, s.at_ms / 1000, s.at_ms, s.received_ms, s.utilisation_pct, s.memory_used_bytes, s.memory_total_bytes,
           s.temperature_c, s.power_mw, s.clock_mhz, s.memory_busy_pct, s.memory_clock_mhz, s.power_limit_mw, s.fan_pct,
           s.throttle, s.pcie_rx_bytes_per_s, s.pcie_tx_bytes_per_s, s.processes, s.foreign_processes,
           s.foreign_memory_bytes, s.ecc_errors, s.retired_pages, s.xid
    FROM sample_before s JOIN listing l USING (peer_id, device_id);
DROP TABLE sample_before;
