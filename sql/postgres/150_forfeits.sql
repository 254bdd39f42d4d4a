-- What a pack still held at its end is told, whoever wrote it down: the closing of the period in which it ended, or the sweep of packs
-- that no closing will come for. What a later count takes back (a forfeit above 0) is not.
CREATE FUNCTION tell_forfeited() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM tell('prepaid.forfeited', c.tenant, p.metric, jsonb_build_object('pack', p.id, 'name', p.name, 'tenant', c.tenant,
    'contract', p.contract, 'item', p.item, 'metric', p.metric, 'quantity', (-NEW.quantity)::text, 'expires', p.expires), NEW.made_at)
  FROM prepaid_packs p JOIN catalog_contracts c ON c.id = p.contract WHERE p.id = NEW.pack;
  RETURN NULL;
END $$;
CREATE TRIGGER prepaid_entries_told_forfeit AFTER INSERT ON prepaid_entries FOR EACH ROW
  WHEN (NEW.kind = 'forfeit' AND NEW.quantity < 0) EXECUTE FUNCTION tell_forfeited();
