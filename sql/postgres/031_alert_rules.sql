-- Rules of alerts, per tenant and metric, and when each meter was heard last. Forward only. Times are epoch milliseconds.

CREATE TABLE alert_rules (
  id         text   PRIMARY KEY,
  version    int    NOT NULL,            -- grows with every change of what it says: a changed rule may ring again
  tenant     text   NOT NULL,
  metric     text   NOT NULL,
  kind       text   NOT NULL CHECK (kind IN ('percent', 'absolute', 'recurring', 'forecast', 'silence')),
  name       text   NOT NULL DEFAULT '',
  terms      jsonb  NOT NULL,            -- by kind, as src/quota/rules.ts writes them; quantities are decimal text
  enabled    boolean NOT NULL DEFAULT true,
  created_at bigint NOT NULL,
  changed_at bigint NOT NULL
);
CREATE INDEX alert_rules_by_tenant ON alert_rules (tenant, metric);

ALTER TABLE alerts
  ADD COLUMN kind     text NOT NULL DEFAULT 'threshold',  -- threshold | recurring | forecast | silence
  ADD COLUMN rule     text,                               -- alert_rules.id; NULL: a threshold of the contract item
  ADD COLUMN subject  text,                               -- of a silence
  ADD COLUMN forecast text;                               -- of a forecast: usage at the period's end, decimal text
CREATE INDEX alerts_of_silences ON alerts (tenant, metric) WHERE kind = 'silence';

CREATE TABLE meters_heard (
  tenant   text   NOT NULL,
  metric   text   NOT NULL,
  subject  text   NOT NULL,              -- '': the metric as a whole
  heard_at bigint NOT NULL,
  PRIMARY KEY (tenant, metric, subject)
);

-- The moment that meters_heard speaks of: the time in which the service was away is nobody's silence.
CREATE TABLE meters_clock (
  one   boolean PRIMARY KEY DEFAULT true CHECK (one),
  as_of bigint  NOT NULL
);
