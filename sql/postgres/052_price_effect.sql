-- From when a version of a price holds within a period: from the next one that begins, or for each event by its time. Forward only.

ALTER TABLE catalog_prices ADD COLUMN takes_effect text NOT NULL DEFAULT 'next_period'
  CHECK (takes_effect IN ('next_period', 'event_time'));

-- It belongs to what a version that is no draft keeps.
CREATE FUNCTION keep_price_effect() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (OLD.status <> 'draft' OR OLD.billed) AND NEW.takes_effect <> OLD.takes_effect THEN
    RAISE EXCEPTION 'price % % is % and cannot be changed; make a new version', OLD.rule, OLD.version, OLD.status
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER catalog_prices_keep_effect BEFORE UPDATE ON catalog_prices
  FOR EACH ROW EXECUTE FUNCTION keep_price_effect();
