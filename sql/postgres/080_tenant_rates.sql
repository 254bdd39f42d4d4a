-- What a tenant may send where no key comes along: over NATS, and so over MQTT. The row of the tenant '' is that of all tenants
-- without their own.
CREATE TABLE tenant_rates (
  tenant      text PRIMARY KEY,
  limits      jsonb  NOT NULL,          -- requestsPerSecond, eventsPerSecond, bytesPerSecond; what is absent has no limit
  changed_at  bigint NOT NULL
);
