-- Limits that act, per tenant and metric. Forward only. Times are epoch milliseconds.

CREATE TABLE usage_limits (
  tenant     text   NOT NULL,
  metric     text   NOT NULL,
  soft       text,                       -- decimal text; 'included': what the contract item includes; NULL: none
  hard       text,
  changed_at bigint NOT NULL,
  PRIMARY KEY (tenant, metric)
);
