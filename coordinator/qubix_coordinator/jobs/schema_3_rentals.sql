-- SPDX-License-Identifier: Apache-2.0
-- Jobs on a rental: they run on its device alone, and cost nothing beside it.

ALTER TABLE job
    ADD COLUMN rental_id uuid CONSTRAINT job_rental_fk REFERENCES rental (id),
    DROP CONSTRAINT job_cap_positive,
    ADD CONSTRAINT job_cap_positive CHECK (CASE WHEN rental_id IS NULL THEN cap_qu > 0 ELSE cap_qu = 0 END),
    DROP CONSTRAINT job_closing_known,
    ADD CONSTRAINT job_closing_known CHECK
        (closing IN ('cancelled_by_consumer', 'expired', 'cap_reached', 'bad_input', 'attempts_exhausted', 'rental_ended'));
CREATE INDEX job_by_rental ON job (rental_id, no) WHERE rental_id IS NOT NULL AND ended_ms IS NULL;

ALTER TABLE attempt
    ADD COLUMN rental_id uuid CONSTRAINT attempt_rental_fk REFERENCES rental (id),
    ADD CONSTRAINT attempt_free_on_rental CHECK (rental_id IS NULL OR rate_qu_per_h + paid_qu + fee_qu = 0);

-- One consumer on a device at a time (trust.md B2): nobody works on a rented device but for its rental, and no device is
-- rented while somebody else's attempt runs there.
CREATE FUNCTION attempt_on_its_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM listing WHERE id = NEW.listing_id AND rental_id IS NOT DISTINCT FROM NEW.rental_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the device is rented to somebody else, or not to this rental'
            USING ERRCODE = '23514', CONSTRAINT = 'attempt_on_its_device';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER attempt_on_its_device BEFORE INSERT ON attempt FOR EACH ROW EXECUTE FUNCTION attempt_on_its_device();

CREATE FUNCTION listing_rented_while_idle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM attempt WHERE listing_id = NEW.id AND state IN ('offered', 'running')
        AND rental_id IS DISTINCT FROM NEW.rental_id;
    IF FOUND THEN
        RAISE EXCEPTION 'somebody works on the device' USING ERRCODE = '23514', CONSTRAINT = 'listing_rented_while_idle';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER listing_rented_while_idle BEFORE UPDATE ON listing FOR EACH ROW
    WHEN (NEW.rental_id IS DISTINCT FROM OLD.rental_id) EXECUTE FUNCTION listing_rented_while_idle();
