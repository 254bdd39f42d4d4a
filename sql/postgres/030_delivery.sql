-- Deliveries to the outside: who is told (webhooks and e-mail addresses), what there is to tell, and what became of each telling.
-- Forward only. Times are epoch milliseconds of the real clock: receivers judge a signature's age by theirs.

CREATE TABLE delivery_endpoints (
  id              text   PRIMARY KEY,
  channel         text   NOT NULL CHECK (channel IN ('webhook', 'email')),
  tenant          text,                   -- NULL: platform-wide, told of every tenant
  target          text   NOT NULL,        -- URL or address
  language        text   NOT NULL DEFAULT 'fr' CHECK (language IN ('fr', 'en')),
  description     text   NOT NULL DEFAULT '',
  events          text[] NOT NULL,        -- alert.triggered, alert.*, *
  metrics         text[],                 -- NULL: of every metric
  rules           text[],                 -- NULL: of every alert rule
  state           text   NOT NULL CHECK (state IN ('enabled', 'disabled')),
  reason          text,                   -- why it is disabled
  secret          bytea,                  -- sealed with delivery.key of the data directory
  previous_secret bytea,                  -- signs too until previous_until
  previous_until  bigint,
  failing_since   bigint,                 -- first failure since the last success
  created_at      bigint NOT NULL,
  changed_at      bigint NOT NULL,
  CHECK ((channel = 'webhook') = (secret IS NOT NULL))
);
CREATE INDEX delivery_endpoints_by_tenant ON delivery_endpoints (tenant);

-- The bytes of a message are kept, so that every attempt sends and signs the same ones.
CREATE TABLE delivery_messages (
  id         text   PRIMARY KEY,          -- stable over deliveries: an alert's id is its message's
  type       text   NOT NULL,
  tenant     text,
  body       text   NOT NULL,
  created_at bigint NOT NULL
);
CREATE INDEX delivery_messages_by_age ON delivery_messages (created_at);

CREATE TABLE deliveries (
  serial     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  message    text   NOT NULL REFERENCES delivery_messages (id) ON DELETE CASCADE,
  endpoint   text   NOT NULL REFERENCES delivery_endpoints (id) ON DELETE CASCADE,
  state      text   NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
  attempts   int    NOT NULL DEFAULT 0,
  next_at    bigint NOT NULL,
  error      text,                        -- of the last attempt
  created_at bigint NOT NULL,
  changed_at bigint NOT NULL,
  UNIQUE (message, endpoint)
);
CREATE INDEX deliveries_pending ON deliveries (endpoint, next_at, serial) WHERE state = 'pending';
CREATE INDEX deliveries_dead ON deliveries (serial) WHERE state = 'dead';
CREATE INDEX deliveries_done ON deliveries (changed_at) WHERE state <> 'pending';
