-- SPDX-License-Identifier: Apache-2.0
-- What a query is answered from: one narrow row for each listing that can be in the market, its columns named as the
-- fields of the query line (qubix_protocol.query.fields), NULL for what is unknown. A trigger keeps it, so that nothing
-- that writes a listing can forget it.

-- A to Z alone, as the query line folds letters.
CREATE FUNCTION query_lower(text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    RETURN lower($1 COLLATE "C");

-- 'NVIDIA GeForce RTX 4090' and 'rtx_4090' are one.
CREATE FUNCTION query_model(text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    RETURN regexp_replace(
        replace(query_lower($1), '_', ' '),
        '^(?:(?:nvidia|geforce|amd|radeon|intel\(r\)|intel|arc\(tm\)|apple|tesla|quadro) )*',
        '');

-- The version that a text begins with, as a text that sorts like it: noughts at the end left out, and before each number
-- a letter for how many digits it has (12.10 is b12b10). NULL where the text begins with no version.
CREATE FUNCTION query_version(text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    RETURN (
        SELECT string_agg(chr(96 + length(part::bigint::text)) || part::bigint::text, '' ORDER BY place)
        FROM unnest(string_to_array(
            regexp_replace(substring($1 FROM '^[0-9]{1,9}(?:\.[0-9]{1,9})*'), '(?:\.0+)+$', ''), '.'))
            WITH ORDINALITY AS parts (part, place));

-- The runs of three letters in a text, for an index that finds a word in the middle: PostgreSQL's own trigrams are an
-- extension. Dear to work out, so that the planner asks the index and not every row.
CREATE FUNCTION query_grams(text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT COST 5000
    RETURN (
        SELECT coalesce(array_agg(DISTINCT substr($1 COLLATE "C", place, 3)), '{}')
        FROM generate_series(1, length($1) - 2) AS place);

-- What is always there stands in front, then numbers: a scan of everything reads those fastest.
CREATE TABLE listing_search (
    id             uuid PRIMARY KEY CONSTRAINT listing_search_listing_fk REFERENCES listing (id) ON DELETE CASCADE,
    offered_ms     bigint NOT NULL,
    price          bigint NOT NULL,
    num_gpus       bigint NOT NULL,
    jobs_accepted  bigint NOT NULL,
    jobs_rejected  bigint NOT NULL,
    verified       boolean NOT NULL,
    country_seen   boolean NOT NULL,
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
    device         text COLLATE "C" NOT NULL,
    text           text COLLATE "C" NOT NULL
) WITH (fillfactor = 85);

CREATE FUNCTION listing_search_of(l listing) RETURNS listing_search
    LANGUAGE sql STABLE
    RETURN ROW(
        l.id,
        l.offered_ms,
        l.rate_qu_per_h,
        l.devices_alike,
        l.jobs_accepted,
        l.jobs_rejected,
        l.verified,
        l.country_seen,
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
        l.device_id,
        query_lower(concat_ws(E'\n', l.model, l.region, l.country, l.peer_id, l.driver))
    )::listing_search;

CREATE FUNCTION listing_searched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT NEW.online OR NEW.rental_id IS NOT NULL OR NEW.availability = 'offline' THEN
        DELETE FROM listing_search WHERE id = NEW.id;
        RETURN NULL;
    END IF;
    UPDATE listing_search s SET
        (id, offered_ms, price, num_gpus, jobs_accepted, jobs_rejected, verified, country_seen, kind,
            isolation, availability, gpu_name, region, country, gpu_ram, score, score_per_qu, reliability,
            metrics_ms, utilisation, memory_used, memory_free, temperature, power, power_limit, clock, fan,
            gpu_cores, cpu_cores, cpu_ram, disk_space, inet_down, inet_up, notice, compute_cap, cuda_vers,
            driver_version, backend, provider, device, text)
        = (r.id, r.offered_ms, r.price, r.num_gpus, r.jobs_accepted, r.jobs_rejected, r.verified,
            r.country_seen, r.kind, r.isolation, r.availability, r.gpu_name, r.region, r.country, r.gpu_ram,
            r.score, r.score_per_qu, r.reliability, r.metrics_ms, r.utilisation, r.memory_used, r.memory_free,
            r.temperature, r.power, r.power_limit, r.clock, r.fan, r.gpu_cores, r.cpu_cores, r.cpu_ram,
            r.disk_space, r.inet_down, r.inet_up, r.notice, r.compute_cap, r.cuda_vers, r.driver_version,
            r.backend, r.provider, r.device, r.text)
        FROM listing_search_of(NEW) r WHERE s.id = r.id AND s IS DISTINCT FROM r;
    IF NOT FOUND THEN
        INSERT INTO listing_search SELECT r.* FROM listing_search_of(NEW) r ON CONFLICT (id) DO NOTHING;
    END IF;
    RETURN NULL;
END $$;

INSERT INTO listing_search
    SELECT r.* FROM listing l CROSS JOIN LATERAL listing_search_of(l) r
    WHERE l.online AND l.rental_id IS NULL AND l.availability <> 'offline';

CREATE TRIGGER listing_searched AFTER INSERT OR UPDATE ON listing FOR EACH ROW EXECUTE FUNCTION listing_searched();

CREATE INDEX listing_search_price ON listing_search (price, id);
CREATE INDEX listing_search_model ON listing_search (gpu_name, region, price, id);
CREATE INDEX listing_search_value ON listing_search (score_per_qu DESC NULLS LAST, id);
CREATE INDEX listing_search_provider ON listing_search (provider, price, id);
CREATE INDEX listing_search_text ON listing_search USING gin (query_grams(text));
