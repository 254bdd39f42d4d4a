-- The catalogue: what is counted, what it costs, who pays. Every change grows one version number, and the change itself is kept
-- for ever: a record of the event log names the version it was judged under.
-- Forward only. Times are epoch milliseconds. Definitions are jsonb as src/catalog writes them; amounts and quantities in them
-- are decimal text.

CREATE TABLE catalog_head (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  version  bigint NOT NULL
);
INSERT INTO catalog_head (version) VALUES (0);
COMMENT ON TABLE catalog_head IS 'One row; a change locks it, so that changes have one order.';

CREATE TABLE catalog_versions (
  version  bigint PRIMARY KEY,
  at       bigint NOT NULL,
  kind     text   NOT NULL,             -- metric, product, plan, price, legal_entity, customer, contract
  key      text   NOT NULL,
  change   jsonb  NOT NULL              -- {before, after}: the definitions, before is null for a new one
);

CREATE TABLE catalog_metrics (
  key        text   NOT NULL,
  version    int    NOT NULL,           -- a changed scale, aggregation or unit is a new version
  definition jsonb  NOT NULL,
  changed_in bigint NOT NULL REFERENCES catalog_versions (version) DEFERRABLE INITIALLY DEFERRED,
  PRIMARY KEY (key, version)
);

CREATE TABLE catalog_products (
  key        text   PRIMARY KEY,
  definition jsonb  NOT NULL,
  changed_in bigint NOT NULL REFERENCES catalog_versions (version) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE catalog_plans (
  key        text   NOT NULL,
  version    int    NOT NULL,           -- changed contents are a new version; contract items name theirs
  definition jsonb  NOT NULL,
  changed_in bigint NOT NULL REFERENCES catalog_versions (version) DEFERRABLE INITIALLY DEFERRED,
  PRIMARY KEY (key, version)
);

CREATE TABLE catalog_prices (
  rule           text    NOT NULL,
  version        text    NOT NULL CHECK (version ~ '^[0-9]{1,6}\.[0-9]{1,6}$'),
  status         text    NOT NULL CHECK (status IN ('draft', 'active', 'archived')),
  effective_from bigint  NOT NULL,      -- in force for periods that begin at or after it, until a later version is
  definition     jsonb   NOT NULL,      -- the rule as a person wrote it
  billed         boolean NOT NULL DEFAULT false,
  changed_in     bigint  NOT NULL REFERENCES catalog_versions (version) DEFERRABLE INITIALLY DEFERRED,
  PRIMARY KEY (rule, version)
);

CREATE TABLE catalog_legal_entities (
  key        text   PRIMARY KEY,
  definition jsonb  NOT NULL,
  changed_in bigint NOT NULL REFERENCES catalog_versions (version) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE catalog_customers (
  tenant     text   PRIMARY KEY,
  definition jsonb  NOT NULL,
  changed_in bigint NOT NULL REFERENCES catalog_versions (version) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE catalog_contracts (
  id         text   PRIMARY KEY,
  tenant     text   NOT NULL REFERENCES catalog_customers (tenant),
  definition jsonb  NOT NULL,           -- with its items and their entitlements
  changed_in bigint NOT NULL REFERENCES catalog_versions (version) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX catalog_contracts_by_tenant ON catalog_contracts (tenant);

-- Kept for ever, and never rewritten.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% rows are never changed or deleted', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER catalog_versions_stay BEFORE UPDATE OR DELETE ON catalog_versions
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER catalog_versions_stay_whole BEFORE TRUNCATE ON catalog_versions
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER catalog_metrics_stay BEFORE UPDATE OR DELETE ON catalog_metrics
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER catalog_plans_stay BEFORE UPDATE OR DELETE ON catalog_plans
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A price that is not a draft keeps its content; a price that billed keeps it for ever.
CREATE FUNCTION keep_prices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'price versions are archived, not deleted' USING ERRCODE = 'restrict_violation';
  END IF;
  IF (OLD.status <> 'draft' OR OLD.billed)
     AND (NEW.definition <> OLD.definition OR NEW.effective_from <> OLD.effective_from
          OR NEW.rule <> OLD.rule OR NEW.version <> OLD.version) THEN
    RAISE EXCEPTION 'price % % is % and cannot be changed; make a new version', OLD.rule, OLD.version, OLD.status
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.billed AND NOT NEW.billed THEN
    RAISE EXCEPTION 'price % % has billed', OLD.rule, OLD.version USING ERRCODE = 'restrict_violation';
  END IF;
  IF (OLD.status, NEW.status) NOT IN (('draft','draft'),('draft','active'),('draft','archived'),('active','active'),
                                      ('active','archived'),('archived','archived')) THEN
    RAISE EXCEPTION 'price % % is % and cannot become %', OLD.rule, OLD.version, OLD.status, NEW.status
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER catalog_prices_stay BEFORE UPDATE OR DELETE ON catalog_prices
  FOR EACH ROW EXECUTE FUNCTION keep_prices();
