-- SPDX-License-Identifier: Apache-2.0
-- Browser tabs as providers. `browser` is seen by the coordinator: the offer came by the tab's own socket.

ALTER TABLE listing
    ADD COLUMN browser boolean NOT NULL DEFAULT false,
    ADD COLUMN fallback boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT listing_browser_is_webgpu CHECK (NOT browser OR kind = 'webgpu'),
    -- its results are always checked (trust C4), and it can close at any time
    ADD CONSTRAINT listing_browser_not_rented CHECK (NOT browser OR rental_id IS NULL);

ALTER TABLE listing_search ADD COLUMN browser boolean NOT NULL DEFAULT false;

CREATE OR REPLACE FUNCTION listing_search_of(l listing) RETURNS listing_search
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
        query_lower(concat_ws(E'\n', l.model, l.region, l.country, l.peer_id, l.driver)),
        l.browser
    )::listing_search;

CREATE OR REPLACE FUNCTION listing_searched() RETURNS trigger LANGUAGE plpgsql AS $$
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
            driver_version, backend, provider, device, text, browser)
        = (r.id, r.offered_ms, r.price, r.num_gpus, r.jobs_accepted, r.jobs_rejected, r.verified,
            r.country_seen, r.kind, r.isolation, r.availability, r.gpu_name, r.region, r.country, r.gpu_ram,
            r.score, r.score_per_qu, r.reliability, r.metrics_ms, r.utilisation, r.memory_used, r.memory_free,
            r.temperature, r.power, r.power_limit, r.clock, r.fan, r.gpu_cores, r.cpu_cores, r.cpu_ram,
            r.disk_space, r.inet_down, r.inet_up, r.notice, r.compute_cap, r.cuda_vers, r.driver_version,
            r.backend, r.provider, r.device, r.text, r.browser)
        FROM listing_search_of(NEW) r WHERE s.id = r.id AND s IS DISTINCT FROM r;
    IF NOT FOUND THEN
        INSERT INTO listing_search SELECT r.* FROM listing_search_of(NEW) r ON CONFLICT (id) DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
