-- How many metrics, subjects, series and values of a dimension a tenant may name in a month. The row of the tenant '' is that of
-- all tenants without their own.
CREATE TABLE cardinality_limits (
  tenant      text PRIMARY KEY,
  limits      jsonb  NOT NULL,          -- metrics, subjects, series, dimValues: a number or null
  changed_at  bigint NOT NULL
);
