-- What happened to invoices, contracts and prepaid packs, for those who are told of it (src/delivery/events.ts has the table of
-- types): written by the database in the transaction of the change itself, so that nothing is told that did not happen, and nothing
-- that happened is lost. Forward only. Times are epoch milliseconds.

CREATE TABLE outbox (
  serial bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id     text   NOT NULL DEFAULT 'evt_' || replace(gen_random_uuid()::text, '-', ''), -- of the message, the same over all attempts
  type   text   NOT NULL,
  tenant text,            -- NULL: told to platform-wide endpoints alone
  metric text,
  data   jsonb  NOT NULL,
  at     bigint NOT NULL
);

-- Nobody listens, nothing is written: closing a hundred thousand contracts costs no rows for it.
CREATE FUNCTION tell(told_type text, told_tenant text, told_metric text, told_data jsonb, told_at bigint) RETURNS void LANGUAGE sql AS $$
  INSERT INTO outbox (type, tenant, metric, data, at)
  SELECT told_type, told_tenant, told_metric, jsonb_strip_nulls(told_data), told_at WHERE EXISTS (
    SELECT 1 FROM delivery_endpoints e WHERE e.state = 'enabled' AND (e.tenant IS NULL OR e.tenant = told_tenant)
      AND e.events && ARRAY[told_type, split_part(told_type, '.', 1) || '.*', '*'])
$$;

CREATE FUNCTION told_invoice(i invoices) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('invoice', i.id, 'number', i.number, 'kind', i.kind, 'state', i.state, 'tenant', i.tenant,
    'contract', i.contract, 'period', jsonb_build_object('from', i.period_from, 'to', i.period_to), 'currency', i.currency,
    'ht', i.ht::text, 'tva', i.tva::text, 'ttc', i.ttc::text, 'issuedOn', i.issued_on, 'dueOn', i.due_on, 'refersTo', i.refers_to)
$$;

CREATE FUNCTION tell_drafts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM delivery_endpoints e
    WHERE e.state = 'enabled' AND e.events && ARRAY['invoice.drafted', 'invoice.*', '*']) THEN
    RETURN NULL;
  END IF;
  PERFORM tell('invoice.drafted', f.tenant, NULL, told_invoice(i), f.created_at)
  FROM fresh f JOIN invoices i ON i.id = f.id WHERE f.kind = 'invoice' ORDER BY f.id;
  RETURN NULL;
END $$;
CREATE TRIGGER invoices_told_made AFTER INSERT ON invoices REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION tell_drafts();

CREATE FUNCTION tell_invoice_moves() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  what text;
BEGIN
  FOREACH what IN ARRAY CASE
    WHEN NEW.state = 'finalised' AND NEW.kind = 'credit_note' THEN ARRAY['credit_note.issued']
    WHEN NEW.state = 'finalised' AND OLD.state = 'certifying' THEN ARRAY['invoice.certified', 'invoice.finalized']
    WHEN NEW.state = 'finalised' THEN ARRAY['invoice.finalized']
    WHEN NEW.state = 'rejected' THEN ARRAY['invoice.rejected']
    WHEN NEW.kind = 'credit_note' THEN ARRAY[]::text[]
    WHEN NEW.state = 'sent' THEN ARRAY['invoice.sent']
    WHEN NEW.state = 'paid' THEN ARRAY['invoice.paid']
    WHEN NEW.state = 'credited' THEN ARRAY['invoice.voided']
    WHEN NEW.state = 'discarded' THEN ARRAY['invoice.discarded']
    ELSE ARRAY[]::text[] END
  LOOP
    PERFORM tell(what, NEW.tenant, NULL, told_invoice(NEW) || jsonb_build_object('from', OLD.state,
      'actor', coalesce(nullif(current_setting('releve.actor', true), ''), 'system'),
      'reason', nullif(current_setting('releve.reason', true), '')), NEW.changed_at);
  END LOOP;
  RETURN NULL;
END $$;
CREATE TRIGGER invoices_told_moved AFTER UPDATE OF state ON invoices FOR EACH ROW
  WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION tell_invoice_moves();

CREATE FUNCTION tell_contract_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM tell(CASE NEW.kind WHEN 'move' THEN 'contract.moved' WHEN 'notice' THEN 'contract.notice_given'
      ELSE 'contract.' || NEW.kind END,
    c.tenant, NULL, jsonb_build_object('contract', NEW.contract, 'tenant', c.tenant, 'from', NEW.from_state, 'to', NEW.to_state,
      'on', NEW.on_day, 'detail', NEW.detail, 'reason', NEW.reason, 'actor', NEW.actor), NEW.made_at)
  FROM catalog_contracts c WHERE c.id = NEW.contract;
  RETURN NULL;
END $$;
CREATE TRIGGER contract_moves_told AFTER INSERT ON contract_moves FOR EACH ROW EXECUTE FUNCTION tell_contract_moves();

-- A pack is exhausted when a debit leaves nothing of it.
CREATE FUNCTION tell_exhausted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM tell('prepaid.exhausted', c.tenant, p.metric, jsonb_build_object('pack', p.id, 'name', p.name, 'tenant', c.tenant,
    'contract', p.contract, 'item', p.item, 'metric', p.metric, 'quantity', p.quantity::text), spent.made_at)
  FROM (SELECT pack, max(made_at) AS made_at FROM fresh WHERE kind = 'debit' GROUP BY pack ORDER BY pack) spent
    JOIN prepaid_packs p ON p.id = spent.pack JOIN prepaid_balances b ON b.pack = p.id JOIN catalog_contracts c ON c.id = p.contract
  WHERE b.balance <= 0;
  RETURN NULL;
END $$;
CREATE TRIGGER prepaid_entries_told AFTER INSERT ON prepaid_entries REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION tell_exhausted();
