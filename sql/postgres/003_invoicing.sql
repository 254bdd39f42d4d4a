-- Closings, invoices and their numbers. Forward only. Times are epoch milliseconds, dates are calendar dates as text.

-- One row per counter. The row is locked by the transaction that issues, so that a rolled-back one gives its number back; a
-- sequence would not.
CREATE TABLE number_series (
  legal_entity text   NOT NULL,
  series       text   NOT NULL,          -- the pattern with its date filled in: FA-2026-{NNNN}
  last         bigint NOT NULL,
  last_date    text   NOT NULL,          -- issue dates never fall within a series
  PRIMARY KEY (legal_entity, series)
);

CREATE TABLE closings (
  id          text   PRIMARY KEY,        -- contract and period
  contract    text   NOT NULL,
  period_from bigint NOT NULL,
  period_to   bigint NOT NULL,
  state       text   NOT NULL CHECK (state IN ('open', 'measured', 'drafted', 'done')),
  attempt     int    NOT NULL DEFAULT 1, -- grows when a draft is discarded, and with it the name of the cut
  measured    jsonb,                     -- {order, terms, usage, late}: what the invoice is a function of; written once an attempt
  invoice     text,
  created_at  bigint NOT NULL,
  updated_at  bigint NOT NULL,
  UNIQUE (contract, period_from)
);

CREATE TABLE invoices (
  id           text   PRIMARY KEY,
  kind         text   NOT NULL CHECK (kind IN ('invoice', 'credit_note')),
  state        text   NOT NULL CHECK (state IN ('draft', 'finalised', 'paid', 'credited', 'discarded')),
  legal_entity text   NOT NULL,
  tenant       text   NOT NULL,
  contract     text   NOT NULL,
  period_from  bigint NOT NULL,
  period_to    bigint NOT NULL,
  currency     text   NOT NULL,
  ht           numeric NOT NULL,
  tva          numeric NOT NULL,
  ttc          numeric NOT NULL,
  refers_to    text   REFERENCES invoices (id),
  series       text,
  counter      bigint,
  number       text,
  issued_on    text,
  due_on       text,
  document     jsonb  NOT NULL,          -- the whole invoice (src/invoicing/invoice.ts), snapshots inside
  hash         text,                     -- SHA-256 of the canonical document, from its issue on
  created_at   bigint NOT NULL,
  changed_at   bigint NOT NULL,
  CHECK ((state IN ('draft', 'discarded')) = (number IS NULL)),
  CHECK ((number IS NULL) = (hash IS NULL)),
  UNIQUE (legal_entity, series, counter),
  UNIQUE (legal_entity, number)
);
-- Two closers never make two invoices of one period.
CREATE UNIQUE INDEX invoices_once ON invoices (contract, period_from, kind) WHERE kind = 'invoice' AND state <> 'discarded';
CREATE INDEX invoices_by_tenant ON invoices (tenant, created_at);
CREATE INDEX invoices_by_reference ON invoices (refers_to) WHERE refers_to IS NOT NULL;

-- Issued never changes: of a row with a number only the state may move, along its arrows.
CREATE FUNCTION keep_invoices() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  kept invoices;
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.number IS NOT NULL THEN
      RAISE EXCEPTION 'invoice % is issued: immutable, make a credit note', OLD.number USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
  END IF;
  IF OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN
     (('draft','finalised'),('draft','discarded'),('finalised','paid'),('finalised','credited'),('paid','credited')) THEN
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
CREATE TRIGGER invoices_stay BEFORE UPDATE OR DELETE ON invoices FOR EACH ROW EXECUTE FUNCTION keep_invoices();
CREATE TRIGGER invoices_stay_whole BEFORE TRUNCATE ON invoices FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A counter goes up by one and never back.
CREATE FUNCTION keep_series() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR NEW.last <> OLD.last + 1 OR NEW.legal_entity <> OLD.legal_entity OR NEW.series <> OLD.series
     OR NEW.last_date < OLD.last_date THEN
    RAISE EXCEPTION 'a number series goes up by one' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER number_series_stay BEFORE UPDATE OR DELETE ON number_series FOR EACH ROW EXECUTE FUNCTION keep_series();
CREATE TRIGGER number_series_stay_whole BEFORE TRUNCATE ON number_series FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
