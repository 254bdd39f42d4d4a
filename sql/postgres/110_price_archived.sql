-- When a price version was archived: it takes no period that begins, and no usage that happens, from then on. Null for those that
-- were archived before this column: they stay in force until a later version is.
ALTER TABLE catalog_prices ADD COLUMN archived_at bigint
  CHECK (archived_at IS NULL OR status = 'archived');

CREATE FUNCTION keep_price_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.status = 'archived' AND NEW.archived_at IS DISTINCT FROM OLD.archived_at THEN
    RAISE EXCEPTION 'price % % is archived and stays so', OLD.rule, OLD.version USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER catalog_prices_keep_end BEFORE UPDATE ON catalog_prices
  FOR EACH ROW EXECUTE FUNCTION keep_price_end();
