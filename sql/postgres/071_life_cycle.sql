-- The life of an invoice: more states, a journal of every move, and certification by a clearance system. Forward only.

ALTER TABLE invoices DROP CONSTRAINT invoices_state_check;
ALTER TABLE invoices ADD CONSTRAINT invoices_state_check CHECK
  (state IN ('draft', 'grace', 'certifying', 'rejected', 'finalised', 'sent', 'paid', 'credited', 'discarded'));
ALTER TABLE invoices DROP CONSTRAINT invoices_check;
ALTER TABLE invoices ADD CONSTRAINT invoices_numbered CHECK ((state IN ('draft', 'grace', 'discarded')) = (number IS NULL));

-- A period has one invoice (part 0) and, when usage changed after it, corrections (1, 2 …): each with a closing of its own.
ALTER TABLE closings ADD COLUMN part int NOT NULL DEFAULT 0;
ALTER TABLE closings DROP CONSTRAINT closings_contract_period_from_key;
ALTER TABLE closings ADD UNIQUE (contract, period_from, part);
ALTER TABLE invoices ADD COLUMN part int NOT NULL DEFAULT 0;
DROP INDEX invoices_once;
CREATE UNIQUE INDEX invoices_once ON invoices (contract, period_from, part) WHERE kind = 'invoice' AND state <> 'discarded';

-- src/invoicing/state.ts has the same table of moves; a test holds the two against each other.
CREATE OR REPLACE FUNCTION keep_invoices() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  kept invoices;
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.number IS NOT NULL THEN
      RAISE EXCEPTION 'invoice % is issued: immutable, make a credit note', OLD.number USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
  END IF;
  IF OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
     ('draft','grace'), ('draft','certifying'), ('draft','finalised'), ('draft','discarded'),
     ('grace','draft'), ('grace','certifying'), ('grace','finalised'), ('grace','discarded'),
     ('certifying','finalised'), ('certifying','rejected'), ('rejected','certifying'), ('rejected','credited'),
     ('finalised','sent'), ('finalised','paid'), ('finalised','credited'), ('sent','paid'), ('sent','credited'),
     ('paid','credited')) THEN
    RAISE EXCEPTION 'invoice % is % and cannot become %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.number IS NOT NULL OR OLD.state = 'discarded' THEN
    kept := OLD;
    kept.state := NEW.state;
    kept.changed_at := NEW.changed_at;
    IF NEW IS DISTINCT FROM kept THEN
      RAISE EXCEPTION 'invoice % is issued: immutable, make a credit note', coalesce(OLD.number, OLD.id)
        USING ERRCODE = 'restrict_violation';
    END IF;
  END IF;
  RETURN NEW;
END $$;

-- Who moved what, when and why. Written by the database, so that no way leads past it; the actor and the reason are settings of the
-- transaction. The making of a draft is not a move: invoices.created_at says when.
CREATE TABLE invoice_moves (
  serial      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  invoice     text   NOT NULL,
  from_state  text   NOT NULL,
  to_state    text   NOT NULL,
  actor       text   NOT NULL,
  reason      text,
  at          bigint NOT NULL
);
CREATE INDEX invoice_moves_by_invoice ON invoice_moves (invoice, serial);
CREATE FUNCTION journal_invoices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO invoice_moves (invoice, from_state, to_state, actor, reason, at)
  VALUES (NEW.id, OLD.state, NEW.state, coalesce(nullif(current_setting('releve.actor', true), ''), 'system'),
    nullif(current_setting('releve.reason', true), ''), NEW.changed_at);
  RETURN NEW;
END $$;
CREATE TRIGGER invoices_journal AFTER UPDATE OF state ON invoices FOR EACH ROW
  WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION journal_invoices();
CREATE TRIGGER invoice_moves_stay BEFORE UPDATE OR DELETE ON invoice_moves FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoice_moves_stay_whole BEFORE TRUNCATE ON invoice_moves FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One row per invoice that a clearance system has to take. `sending` is written before the call: a process that dies in it leaves a
-- row of which nobody knows whether the system has taken it, and which is therefore never sent again by itself.
CREATE TABLE invoice_certifications (
  invoice     text   PRIMARY KEY REFERENCES invoices (id),
  system      text   NOT NULL,
  state       text   NOT NULL CHECK (state IN ('pending', 'sending', 'unknown', 'rejected', 'certified')),
  attempts    int    NOT NULL DEFAULT 0,
  next_at     bigint NOT NULL,
  reason      text,
  reference   text,
  token       text,
  details     jsonb,                     -- what a later credit needs, as the system answered it
  changed_at  bigint NOT NULL,
  CHECK ((state = 'certified') = (reference IS NOT NULL))
);
CREATE INDEX invoice_certifications_due ON invoice_certifications (next_at) WHERE state = 'pending';
CREATE FUNCTION keep_certifications() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR OLD.state = 'certified' THEN
    RAISE EXCEPTION 'the certification of % stays', OLD.invoice USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER invoice_certifications_stay BEFORE UPDATE OR DELETE ON invoice_certifications
  FOR EACH ROW EXECUTE FUNCTION keep_certifications();
CREATE TABLE invoice_certification_attempts (
  serial   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  invoice  text   NOT NULL,
  outcome  text   NOT NULL,
  reason   text,
  actor    text   NOT NULL,
  at       bigint NOT NULL
);
CREATE INDEX invoice_certification_attempts_by_invoice ON invoice_certification_attempts (invoice, serial);
CREATE TRIGGER invoice_certification_attempts_stay BEFORE UPDATE OR DELETE ON invoice_certification_attempts
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
