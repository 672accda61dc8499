-- SPDX-License-Identifier: Apache-2.0
-- Free text is looked for in few words: most listings share theirs with others. Each of them is kept once, and a listing
-- has its number; a scan of everything reads a number where it read a text, and the index of letters is a small one.
--
--   listing_words  in small letters: model, region, country and driver of a device, one below the other; or a peer id.
--                  What no listing in the market has any more is taken away by the hour

CREATE TABLE listing_words (
    no    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    peer  boolean NOT NULL,
    words text COLLATE "C" NOT NULL,
    CONSTRAINT listing_words_once UNIQUE (words, peer)
);
-- Not put off: whoever searches would have to read what has been put off.
CREATE INDEX listing_words_grams ON listing_words USING gin (query_grams(words)) WITH (fastupdate = off);

-- The words' number, from now on or since before. Locked until the transaction ends: nobody takes them away meanwhile.
CREATE FUNCTION listing_words_no(said text, of_peer boolean) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    found integer;
BEGIN
    SELECT no INTO found FROM listing_words w WHERE w.words = said AND w.peer = of_peer FOR KEY SHARE;
    IF found IS NULL THEN
        INSERT INTO listing_words (words, peer) VALUES (said, of_peer)
            ON CONFLICT (words, peer) DO UPDATE SET words = excluded.words RETURNING no INTO found;
    END IF;
    RETURN found;
END $$;

CREATE FUNCTION listing_words_of(l listing) RETURNS text
    LANGUAGE sql STABLE
    RETURN query_lower(concat_ws(E'\n', l.model, l.region, l.country, l.driver));

DROP TRIGGER listing_searched ON listing;
DROP FUNCTION listing_searched();
DROP FUNCTION listing_search_of(listing);
DROP TABLE listing_search;

-- What is always there stands in front, then numbers: a scan of everything reads those fastest.
CREATE TABLE listing_search (
    id             uuid PRIMARY KEY CONSTRAINT listing_search_listing_fk REFERENCES listing (id) ON DELETE CASCADE,
    offered_ms     bigint NOT NULL,
    price          bigint NOT NULL,
    num_gpus       bigint NOT NULL,
    jobs_accepted  bigint NOT NULL,
    jobs_rejected  bigint NOT NULL,
    words_no       integer NOT NULL CONSTRAINT listing_search_words_fk REFERENCES listing_words (no),
    peer_no        integer NOT NULL CONSTRAINT listing_search_peer_fk REFERENCES listing_words (no),
    verified       boolean NOT NULL,
    country_seen   boolean NOT NULL,
    browser        boolean NOT NULL,
    kind           text COLLATE "C" NOT NULL,
    isolation      text COLLATE "C" NOT NULL,
    availability   text COLLATE "C" NOT NULL,
    gpu_name       text COLLATE "C" NOT NULL,
    region         text COLLATE "C",
    country        text COLLATE "C",
    gpu_ram        bigint,
    score          double precision,
    score_per_qu   double precision,
    reliability    double precision,
    metrics_ms     bigint,
    utilisation    double precision,
    memory_used    bigint,
    memory_free    bigint,
    temperature    double precision,
    power          bigint,
    power_limit    bigint,
    clock          bigint,
    fan            double precision,
    gpu_cores      bigint,
    cpu_cores      bigint,
    cpu_ram        bigint,
    disk_space     bigint,
    inet_down      bigint,
    inet_up        bigint,
    notice         bigint,
    compute_cap    text COLLATE "C",
    cuda_vers      text COLLATE "C",
    driver_version text COLLATE "C",
    backend        text[] COLLATE "C" NOT NULL,
    provider       text COLLATE "C" NOT NULL,
    device         text COLLATE "C" NOT NULL
) WITH (fillfactor = 85);

CREATE FUNCTION listing_search_of(l listing, words_no integer, peer_no integer) RETURNS listing_search
    LANGUAGE sql STABLE
    RETURN ROW(
        l.id,
        l.offered_ms,
        l.rate_qu_per_h,
        l.devices_alike,
        l.jobs_accepted,
        l.jobs_rejected,
        words_no,
        peer_no,
        l.verified,
        l.country_seen,
        l.browser,
        l.kind,
        l.isolation,
        l.availability,
        query_model(l.model),
        nullif(query_lower(l.region), ''),
        nullif(query_lower(l.country), ''),
        nullif(l.memory_bytes, 0),
        nullif(l.score, 0),
        nullif(l.score, 0) / nullif(l.rate_qu_per_h, 0),
        nullif(l.reliability, 0),
        l.metrics_ms,
        (l.metrics ->> 'utilisation_pct')::double precision,
        (l.metrics ->> 'memory_used_bytes')::bigint,
        CASE WHEN l.metrics ->> 'memory_used_bytes' IS NOT NULL THEN
            greatest(0, coalesce((l.metrics ->> 'memory_total_bytes')::bigint, l.memory_bytes)
                        - (l.metrics ->> 'memory_used_bytes')::bigint) END,
        (l.metrics ->> 'temperature_c')::double precision,
        (l.metrics ->> 'power_mw')::bigint,
        (l.metrics ->> 'power_limit_mw')::bigint,
        (l.metrics ->> 'clock_mhz')::bigint,
        (l.metrics ->> 'fan_pct')::double precision,
        nullif(l.cores, 0),
        nullif(l.cpu_cores, 0),
        nullif(l.cpu_memory_bytes, 0),
        nullif(l.disk_free_bytes, 0),
        nullif(l.inet_down_bytes_per_s, 0),
        nullif(l.inet_up_bytes_per_s, 0),
        nullif(l.notice_s, 0),
        query_version(l.compute_capability),
        query_version(l.cuda),
        query_version(l.driver),
        query_lower(l.backends::text)::text[],
        l.peer_id,
        l.device_id
    )::listing_search;

CREATE FUNCTION listing_searched() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    words integer;
    peer  integer;
BEGIN
    IF NOT NEW.online OR NEW.rental_id IS NOT NULL OR NEW.availability = 'offline' THEN
        DELETE FROM listing_search WHERE id = NEW.id;
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' AND (NEW.model, NEW.region, NEW.country, NEW.driver, NEW.peer_id)
            IS NOT DISTINCT FROM (OLD.model, OLD.region, OLD.country, OLD.driver, OLD.peer_id) THEN
        SELECT s.words_no, s.peer_no INTO words, peer FROM listing_search s WHERE s.id = NEW.id;
    END IF;
    IF words IS NULL THEN
        words := listing_words_no(listing_words_of(NEW), false);
        peer := listing_words_no(query_lower(NEW.peer_id), true);
    END IF;
    UPDATE listing_search s SET
        (id, offered_ms, price, num_gpus, jobs_accepted, jobs_rejected, words_no, peer_no, verified,
            country_seen, browser, kind, isolation, availability, gpu_name, region, country, gpu_ram,
            score, score_per_qu, reliability, metrics_ms, utilisation, memory_used, memory_free,
            temperature, power, power_limit, clock, fan, gpu_cores, cpu_cores, cpu_ram, disk_space,
            inet_down, inet_up, notice, compute_cap, cuda_vers, driver_version, backend, provider,
            device)
        = (r.id, r.offered_ms, r.price, r.num_gpus, r.jobs_accepted, r.jobs_rejected, r.words_no,
            r.peer_no, r.verified, r.country_seen, r.browser, r.kind, r.isolation, r.availability,
            r.gpu_name, r.region, r.country, r.gpu_ram, r.score, r.score_per_qu, r.reliability,
            r.metrics_ms, r.utilisation, r.memory_used, r.memory_free, r.temperature, r.power,
            r.power_limit, r.clock, r.fan, r.gpu_cores, r.cpu_cores, r.cpu_ram, r.disk_space,
            r.inet_down, r.inet_up, r.notice, r.compute_cap, r.cuda_vers, r.driver_version, r.backend,
            r.provider, r.device)
        FROM listing_search_of(NEW, words, peer) r WHERE s.id = r.id AND s IS DISTINCT FROM r;
    IF NOT FOUND THEN
        INSERT INTO listing_search SELECT r.* FROM listing_search_of(NEW, words, peer) r ON CONFLICT (id) DO NOTHING;
    END IF;
    RETURN NULL;
END $$;

INSERT INTO listing_words (words, peer)
    SELECT DISTINCT listing_words_of(l), false FROM listing l
    WHERE l.online AND l.rental_id IS NULL AND l.availability <> 'offline'
    UNION SELECT DISTINCT query_lower(l.peer_id), true FROM listing l
    WHERE l.online AND l.rental_id IS NULL AND l.availability <> 'offline';
INSERT INTO listing_search
    SELECT r.* FROM listing l
    JOIN listing_words w ON w.words = listing_words_of(l) AND NOT w.peer
    JOIN listing_words p ON p.words = query_lower(l.peer_id) AND p.peer
    CROSS JOIN LATERAL listing_search_of(l, w.no, p.no) r
    WHERE l.online AND l.rental_id IS NULL AND l.availability <> 'offline';

CREATE TRIGGER listing_searched AFTER INSERT OR UPDATE ON listing FOR EACH ROW EXECUTE FUNCTION listing_searched();

CREATE INDEX listing_search_price ON listing_search (price, id);
CREATE INDEX listing_search_model ON listing_search (gpu_name, region, price, id);
CREATE INDEX listing_search_value ON listing_search (score_per_qu DESC NULLS LAST, id);
CREATE INDEX listing_search_provider ON listing_search (provider, price, id);
CREATE INDEX listing_search_words ON listing_search (words_no, price, id);
CREATE INDEX listing_search_peer ON listing_search (peer_no);
