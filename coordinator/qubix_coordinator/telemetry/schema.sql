-- SPDX-License-Identifier: Apache-2.0
-- Readings as nodes report them: claims, never billed on (trust.md C6).

CREATE TABLE sample (
    peer_id            text NOT NULL CONSTRAINT sample_node_fk REFERENCES node (peer_id),
    device_id          text NOT NULL CONSTRAINT sample_device_bounded CHECK (length(device_id) BETWEEN 1 AND 200),
    at_ms              bigint NOT NULL CONSTRAINT sample_time_not_negative CHECK (at_ms >= 0),
    received_ms        bigint NOT NULL,
    utilisation_pct    real CONSTRAINT sample_utilisation_is_percent CHECK (utilisation_pct BETWEEN 0 AND 100),
    memory_used_bytes  bigint CONSTRAINT sample_memory_used_not_negative CHECK (memory_used_bytes >= 0),
    memory_total_bytes bigint CONSTRAINT sample_memory_total_not_negative CHECK (memory_total_bytes >= 0),
    temperature_c      real,
    power_mw           bigint CONSTRAINT sample_power_not_negative CHECK (power_mw >= 0),
    clock_mhz          bigint CONSTRAINT sample_clock_not_negative CHECK (clock_mhz >= 0),
    PRIMARY KEY (peer_id, device_id, at_ms)
);
CREATE INDEX sample_age ON sample (received_ms);
