-- Prepaid packs: what a customer has bought ahead, and the ledger of what became of it. Forward only. Times are epoch milliseconds.

CREATE TABLE prepaid_packs (
  id         text    PRIMARY KEY,
  contract   text    NOT NULL REFERENCES catalog_contracts (id),
  item       text    NOT NULL,
  metric     text    NOT NULL,
  name       text    NOT NULL,
  quantity   numeric NOT NULL CHECK (quantity > 0), -- units of the metric
  amount     numeric CHECK (amount >= 0),           -- HT; a line of the invoice of the period it was bought in; NULL: not billed here
  priority   int     NOT NULL,                      -- lower pays first
  valid_from bigint  NOT NULL,                      -- a whole minute, as usage is counted by
  expires    bigint,                                -- pays for usage before it; NULL: never
  closing    text,                                  -- of a recharge: the closing that bought it
  attempt    int,
  created_at bigint  NOT NULL,
  CHECK (expires IS NULL OR expires > valid_from),
  CHECK ((closing IS NULL) = (attempt IS NULL))
);
CREATE INDEX prepaid_packs_by_contract ON prepaid_packs (contract, item, metric);

-- A balance is the sum of its entries. An entry that a closing made counts as long as that attempt of the closing stands: when a
-- draft is discarded the next attempt makes its own, and nothing is debited twice.
CREATE TABLE prepaid_entries (
  serial      bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  pack        text    NOT NULL REFERENCES prepaid_packs (id),
  kind        text    NOT NULL CHECK (kind IN ('grant', 'debit', 'forfeit', 'billed')),
  quantity    numeric NOT NULL,                     -- signed; 0 for billed
  at          bigint  NOT NULL,                     -- of the usage, of the expiry, of the purchase
  closing     text,
  attempt     int,
  made_at     bigint  NOT NULL,
  CHECK ((closing IS NULL) = (attempt IS NULL)),
  UNIQUE NULLS NOT DISTINCT (pack, kind, at, closing, attempt)
);
CREATE INDEX prepaid_entries_by_closing ON prepaid_entries (closing);
CREATE TRIGGER prepaid_entries_stay BEFORE UPDATE OR DELETE ON prepaid_entries
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER prepaid_entries_stay_whole BEFORE TRUNCATE ON prepaid_entries
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Of each pack what is left by the entries that stand.
CREATE VIEW prepaid_balances AS
  SELECT p.id AS pack, p.contract, coalesce(sum(e.quantity), 0) AS balance,
    coalesce(-sum(e.quantity) FILTER (WHERE e.kind = 'debit'), 0) AS debited,
    coalesce(-sum(e.quantity) FILTER (WHERE e.kind = 'forfeit'), 0) AS forfeited,
    coalesce(bool_or(e.kind = 'billed'), false) AS billed
  FROM prepaid_packs p
  LEFT JOIN (
    SELECT e.* FROM prepaid_entries e LEFT JOIN closings c ON c.id = e.closing
    WHERE e.closing IS NULL OR c.attempt = e.attempt
  ) AS e ON e.pack = p.id
  GROUP BY p.id;
