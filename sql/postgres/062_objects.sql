-- Connected objects, their events, and the contract items that an activation makes: a row each, outside of the catalogue, so that a
-- fleet may have as many as it likes. Forward only. Times are epoch milliseconds.

CREATE TABLE objects (
  serial     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id         text   NOT NULL UNIQUE,      -- its name: IOT_NS542
  subject    text   NOT NULL,             -- the service id that its usage carries: IMEI, line number, delivery point
  kind       text,
  attributes jsonb  NOT NULL,
  tenant     text   REFERENCES catalog_customers (tenant),
  contract   text   REFERENCES catalog_contracts (id),
  item       text,                        -- the fleet item of the contract, when it is known
  state      text   NOT NULL CHECK (state IN ('draft', 'pending', 'active', 'ended')),
  created_at bigint NOT NULL,
  changed_at bigint NOT NULL,
  CHECK (contract IS NULL OR tenant IS NOT NULL),
  CHECK (item IS NULL OR contract IS NOT NULL),
  CHECK (state <> 'active' OR item IS NOT NULL)
);
CREATE INDEX objects_by_tenant ON objects (tenant, serial);
CREATE INDEX objects_by_contract ON objects (contract, serial);
CREATE INDEX objects_by_id ON objects (id text_pattern_ops);
CREATE INDEX objects_by_subject ON objects (subject text_pattern_ops);

CREATE TABLE object_events (
  serial     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  object     text   NOT NULL REFERENCES objects (id),
  type       text   NOT NULL,
  at         bigint NOT NULL,
  data       jsonb  NOT NULL,
  created_at bigint NOT NULL
);
CREATE INDEX object_events_by_object ON object_events (object, serial);
CREATE TRIGGER object_events_stay BEFORE UPDATE OR DELETE ON object_events FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Half-open ranges on days of the contract. What lies in a measured period does not change any more (objects.ts refuses it), so a
-- closing can be gone again from here.
CREATE TABLE object_items (
  id         text   PRIMARY KEY,
  object     text   NOT NULL REFERENCES objects (id),
  tenant     text   NOT NULL,
  contract   text   NOT NULL REFERENCES catalog_contracts (id),
  parent     text   NOT NULL,             -- the fleet item, whose plan it has
  subject    text   COLLATE "C" NOT NULL, -- in the order of bytes, as ClickHouse sorts
  starts_at  bigint NOT NULL,
  ends_at    bigint NOT NULL,
  created_at bigint NOT NULL,
  CHECK (starts_at < ends_at)
);
CREATE INDEX object_items_by_subject ON object_items (tenant, subject, starts_at);
CREATE INDEX object_items_by_contract ON object_items (contract, parent, subject, starts_at);
CREATE INDEX object_items_by_object ON object_items (object);

-- What each object was charged by a closing: the detail behind the grouped lines, and the objects' invoicing schedules.
CREATE TABLE object_charges (
  closing     text   NOT NULL,
  period_from bigint NOT NULL,            -- the period that is charged: an earlier one when it was counted again
  parent      text   NOT NULL,
  item        text   NOT NULL,
  subject     text   COLLATE "C" NOT NULL,
  covers_from bigint NOT NULL,
  covers_to   bigint NOT NULL,
  fee         numeric NOT NULL,
  usage       jsonb  NOT NULL,            -- [{metric, quantity, data, events, included, billable, amount}], exact
  amount      numeric NOT NULL,           -- exact: fee and usage
  PRIMARY KEY (closing, period_from, item)
);
CREATE INDEX object_charges_by_item ON object_charges (item, period_from);

CREATE FUNCTION release_object_charges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM object_charges WHERE closing = OLD.id;
  RETURN NEW;
END $$;
CREATE TRIGGER closings_release_object_charges AFTER UPDATE ON closings FOR EACH ROW
  WHEN (OLD.state <> 'open' AND NEW.state = 'open') EXECUTE FUNCTION release_object_charges();
