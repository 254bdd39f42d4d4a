-- Usage data beside the stream: quantities and records that people, systems and files hand in, with a state of their own, and the
-- journal of the files. Forward only. Times are epoch milliseconds.

CREATE TABLE usage_imports (
  id          text   PRIMARY KEY,
  serial      bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
  tenant      text,                      -- of the key that sent it; NULL: platform-wide
  name        text   NOT NULL,           -- of the file, as its sender calls it
  sha256      text   NOT NULL,
  bytes       bigint NOT NULL,
  options     jsonb  NOT NULL,           -- separator, decimal, encoding, as found or asked
  state       text   NOT NULL CHECK (state IN ('running', 'done', 'failed', 'undone')),
  replay_of   text   REFERENCES usage_imports (id),
  rows_read   bigint NOT NULL DEFAULT 0, -- grows with each batch, in its transaction: a killed import goes on behind it
  rows_taken  bigint NOT NULL DEFAULT 0,
  rows_known  bigint NOT NULL DEFAULT 0, -- there already, with the same content
  rows_refused bigint NOT NULL DEFAULT 0,
  reason      text,                      -- why it failed
  created_at  bigint NOT NULL,
  updated_at  bigint NOT NULL
);
-- The same file is not imported twice, unless somebody says that it shall be.
CREATE UNIQUE INDEX usage_imports_once ON usage_imports (coalesce(tenant, ''), sha256)
  WHERE state IN ('running', 'done') AND replay_of IS NULL;

CREATE TABLE usage_import_rejects (
  import   text   NOT NULL REFERENCES usage_imports (id),
  row      bigint NOT NULL,              -- line of the file that the row begins on, from 1, as an editor counts
  code     text   NOT NULL,
  message  text   NOT NULL,              -- names the field and why
  raw      text   NOT NULL,              -- the beginning of the row as it came
  PRIMARY KEY (import, row)
);

CREATE TABLE usage_data (
  serial             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id                 text    NOT NULL UNIQUE,
  tenant             text    NOT NULL,
  contract           text    NOT NULL REFERENCES catalog_contracts (id),
  item               text,               -- NULL: offered to the calculators of every item
  external_reference text,
  starts_at          bigint  NOT NULL,   -- its period is the one that holds this
  ends_at            bigint,
  value              numeric,
  data               jsonb,
  qualifier          text,               -- its unit
  description        text,
  axis1              text,
  axis2              text,
  do_not_invoice     boolean NOT NULL DEFAULT false,
  invoicing_notes    text,
  notes              text,               -- printed on the usage statement
  state              text    NOT NULL CHECK (state IN ('draft', 'pending', 'collected', 'excluded')),
  closing            text,               -- the invoicing schedule whose quantity holds it
  period_from        bigint,             -- of the period that it was counted in
  collected_order    int,                -- closings.measured.order of that closing
  import             text    REFERENCES usage_imports (id),
  created_at         bigint  NOT NULL,
  changed_at         bigint  NOT NULL,
  CHECK (num_nonnulls(value, data) <= 1),
  CHECK (state = 'draft' OR num_nonnulls(value, data) = 1),
  CHECK ((state = 'collected') = (closing IS NOT NULL)),
  CHECK (num_nonnulls(closing, period_from, collected_order) IN (0, 3))
);
-- A remote system's key and its date name a datum: sent again, it is the same one.
CREATE UNIQUE INDEX usage_data_once ON usage_data (contract, coalesce(item, ''), external_reference, starts_at)
  WHERE external_reference IS NOT NULL;
CREATE INDEX usage_data_pending ON usage_data (contract, starts_at) WHERE state = 'pending';
CREATE INDEX usage_data_collected ON usage_data (contract, period_from) WHERE state = 'collected';
CREATE INDEX usage_data_by_closing ON usage_data (closing) WHERE closing IS NOT NULL;
CREATE INDEX usage_data_by_tenant ON usage_data (tenant, serial);
CREATE INDEX usage_data_by_reference ON usage_data (external_reference) WHERE external_reference IS NOT NULL;
CREATE INDEX usage_data_by_import ON usage_data (import) WHERE import IS NOT NULL;

-- Collected data do not change: they are the proof behind a line. Confirmed ones keep what was confirmed. Notes are free.
CREATE FUNCTION keep_usage_data() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  kept usage_data;
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.state = 'collected' THEN
      RAISE EXCEPTION 'usage datum % is collected and stays', OLD.id USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
  END IF;
  IF OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (('draft','pending'), ('draft','excluded'),
     ('pending','draft'), ('pending','excluded'), ('pending','collected'), ('excluded','draft'), ('collected','pending')) THEN
    RAISE EXCEPTION 'usage datum % is % and cannot become %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.state <> 'draft' THEN
    kept := OLD;
    kept.state := NEW.state;
    kept.notes := NEW.notes;
    kept.changed_at := NEW.changed_at;
    kept.closing := NEW.closing;
    kept.period_from := NEW.period_from;
    kept.collected_order := NEW.collected_order;
    IF NEW IS DISTINCT FROM kept THEN
      RAISE EXCEPTION 'usage datum % is %: only its notes may change', OLD.id, OLD.state USING ERRCODE = 'restrict_violation';
    END IF;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER usage_data_stay BEFORE UPDATE OR DELETE ON usage_data FOR EACH ROW EXECUTE FUNCTION keep_usage_data();

-- A closing that is opened again gives back what it had collected, in the same transaction, whoever opens it.
CREATE FUNCTION release_usage_data() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE usage_data SET state = 'pending', closing = NULL, period_from = NULL, collected_order = NULL,
    changed_at = NEW.updated_at WHERE closing = OLD.id;
  RETURN NEW;
END $$;
CREATE TRIGGER closings_release_usage_data AFTER UPDATE ON closings FOR EACH ROW
  WHEN (OLD.measured IS NOT NULL AND NEW.measured IS NULL) EXECUTE FUNCTION release_usage_data();
