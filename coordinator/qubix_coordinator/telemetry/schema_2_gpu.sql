-- SPDX-License-Identifier: Apache-2.0
-- What GPUs tell beyond the first readings: claims like all of them. `throttle` holds words separated by commas; empty:
-- nothing lowers the clock, NULL: the card does not tell.

ALTER TABLE sample
    ADD COLUMN memory_busy_pct real CONSTRAINT sample_memory_busy_is_percent CHECK (memory_busy_pct BETWEEN 0 AND 100),
    ADD COLUMN memory_clock_mhz bigint CONSTRAINT sample_memory_clock_not_negative CHECK (memory_clock_mhz >= 0),
    ADD COLUMN power_limit_mw bigint CONSTRAINT sample_power_limit_not_negative CHECK (power_limit_mw >= 0),
    ADD COLUMN fan_pct real CONSTRAINT sample_fan_is_percent CHECK (fan_pct BETWEEN 0 AND 100),
    ADD COLUMN throttle text CONSTRAINT sample_throttle_bounded CHECK (length(throttle) <= 1100),
    ADD COLUMN pcie_rx_bytes_per_s bigint CONSTRAINT sample_pcie_rx_not_negative CHECK (pcie_rx_bytes_per_s >= 0),
    ADD COLUMN pcie_tx_bytes_per_s bigint CONSTRAINT sample_pcie_tx_not_negative CHECK (pcie_tx_bytes_per_s >= 0),
    ADD COLUMN processes bigint CONSTRAINT sample_processes_not_negative CHECK (processes >= 0),
    ADD COLUMN foreign_processes bigint CONSTRAINT sample_foreign_not_negative CHECK (foreign_processes >= 0),
    ADD COLUMN foreign_memory_bytes bigint CONSTRAINT sample_foreign_memory_not_negative CHECK (foreign_memory_bytes >= 0),
    ADD COLUMN ecc_errors bigint CONSTRAINT sample_ecc_not_negative CHECK (ecc_errors >= 0),
    ADD COLUMN retired_pages bigint CONSTRAINT sample_retired_not_negative CHECK (retired_pages >= 0),
    ADD COLUMN xid bigint CONSTRAINT sample_xid_not_negative CHECK (xid >= 0);

-- One reading of a device a second: with the devices that are in the market, and pruning after a day, that bounds what
-- one node can make the table hold.
DELETE FROM sample AS old USING sample AS new
 WHERE old.peer_id = new.peer_id AND old.device_id = new.device_id
   AND old.at_ms / 1000 = new.at_ms / 1000 AND old.at_ms < new.at_ms;
CREATE UNIQUE INDEX sample_once_a_second ON sample (peer_id, device_id, (at_ms / 1000));
