-- SPDX-License-Identifier: Apache-2.0
-- The devnet's memory. A tick and all it changed are written in one transaction, so that a killed devnet goes on where it was.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

CREATE TABLE entity (
    public_key BLOB PRIMARY KEY CHECK (length(public_key) = 32),
    incoming INTEGER NOT NULL CHECK (incoming >= 0),
    outgoing INTEGER NOT NULL CHECK (outgoing >= 0),
    incoming_count INTEGER NOT NULL,
    outgoing_count INTEGER NOT NULL,
    incoming_tick INTEGER NOT NULL,
    outgoing_tick INTEGER NOT NULL,
    CHECK (incoming >= outgoing)
) STRICT, WITHOUT ROWID;

-- What waits for its tick. A priority may be beyond 64 bits.
CREATE TABLE pool (
    id TEXT PRIMARY KEY,
    arrival INTEGER NOT NULL UNIQUE,
    tick INTEGER NOT NULL,
    priority TEXT NOT NULL,
    raw BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tick (
    number INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    timestamp_ms INTEGER NOT NULL,
    empty INTEGER NOT NULL CHECK (empty IN (0, 1))
) STRICT;

-- The true outcome, and beside it what the archive will say: hidden, money_flew_told, times, or wholly invented.
CREATE TABLE tx (
    id TEXT PRIMARY KEY,
    tick INTEGER NOT NULL,
    place INTEGER NOT NULL,
    source BLOB NOT NULL,
    destination BLOB NOT NULL,
    amount INTEGER NOT NULL CHECK (amount >= 0),
    input_type INTEGER NOT NULL,
    payload BLOB NOT NULL,
    signature BLOB NOT NULL CHECK (length(signature) = 64),
    timestamp_ms INTEGER NOT NULL,
    money_flew INTEGER NOT NULL,
    money_flew_told INTEGER NOT NULL,
    hidden INTEGER NOT NULL DEFAULT 0,
    times INTEGER NOT NULL DEFAULT 1,
    invented INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tick, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX tx_source ON tx (source, tick);
CREATE INDEX tx_destination ON tx (destination, tick);

CREATE TABLE event (
    epoch INTEGER NOT NULL,
    log_id INTEGER NOT NULL,
    tick INTEGER NOT NULL,
    tx_id TEXT NOT NULL,
    kind INTEGER NOT NULL,
    source BLOB NOT NULL,
    destination BLOB NOT NULL,
    amount INTEGER NOT NULL,
    timestamp_ms INTEGER NOT NULL,
    PRIMARY KEY (epoch, log_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_tick ON event (tick);
CREATE INDEX event_destination ON event (destination, tick);

-- What the archive tells, lies included.
CREATE VIEW told_tx AS
    SELECT * FROM tx WHERE hidden = 0
    UNION ALL
    SELECT * FROM tx WHERE hidden = 0 AND times = 2;

CREATE VIEW told_event AS
    SELECT event.* FROM event JOIN tx ON tx.id = event.tx_id WHERE tx.hidden = 0
    UNION ALL
    SELECT event.* FROM event JOIN tx ON tx.id = event.tx_id WHERE tx.hidden = 0 AND tx.times = 2
    UNION ALL
    SELECT tick.epoch, tx.tick * 1000 + tx.place, tx.tick, tx.id, 0, tx.source, tx.destination, tx.amount, tx.timestamp_ms
    FROM tx JOIN tick ON tick.number = tx.tick WHERE tx.invented = 1;
