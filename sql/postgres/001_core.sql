-- What the usage side keeps in PostgreSQL: the secret, keys, streams, manifests, checkpoints, folds, cuts and alerts.
-- Forward only. Times are epoch milliseconds (bigint) from releve's own clock: the demo and replays move it by hand.

CREATE TABLE settings (
  name   text PRIMARY KEY,
  value  text NOT NULL
);
COMMENT ON TABLE settings IS 'Fixed at first start: dedupe_secret (hex, 16 bytes), streams (count).';

CREATE TABLE api_keys (
  id          text PRIMARY KEY,
  name        text NOT NULL,
  secret_hash bytea NOT NULL,           -- SHA-256 of the secret part; the secret itself is shown once and kept nowhere
  tenant      text,                     -- NULL: platform-wide
  scopes      text[] NOT NULL,          -- ingest, read, admin
  created_at  bigint NOT NULL,
  revoked_at  bigint
);

-- One row per stream. `fence` grows at each takeover; every conditional write names it.
CREATE TABLE streams (
  stream      int PRIMARY KEY,
  fence       bigint NOT NULL,
  owner       text NOT NULL,
  epoch       bigint NOT NULL,          -- last epoch with a checkpoint; 0 before the first
  position    bigint NOT NULL,          -- last log sequence inside that epoch
  received_at bigint NOT NULL,          -- receivedAt of that record
  dedupe      jsonb NOT NULL,           -- generations in force after that epoch (dedupe/generations.ts)
  totals      jsonb NOT NULL            -- the books, cumulative up to that epoch
);

-- Written before anything of an epoch leaves the process. A manifest without a checkpoint is re-done first after a crash.
CREATE TABLE epoch_manifests (
  stream      int    NOT NULL,
  epoch       bigint NOT NULL,
  from_seq    bigint NOT NULL,
  to_seq      bigint NOT NULL,
  fence       bigint NOT NULL,
  created_at  bigint NOT NULL,
  PRIMARY KEY (stream, epoch)
);

CREATE TABLE epoch_checkpoints (
  stream      int    NOT NULL,
  epoch       bigint NOT NULL,
  from_seq    bigint NOT NULL,
  to_seq      bigint NOT NULL,
  received_at bigint NOT NULL,
  counts      jsonb  NOT NULL,          -- received, stored, refused, accepted, duplicate, conflict
  chunks      jsonb  NOT NULL,          -- [{table, chunk, rows, digest}]
  created_at  bigint NOT NULL,
  PRIMARY KEY (stream, epoch)
);

-- Minutes to hours. A fold covers epochs (from_epoch, to_epoch]; `done_at` is its checkpoint.
CREATE TABLE folds (
  stream      int    NOT NULL,
  fold        bigint NOT NULL,
  from_epoch  bigint NOT NULL,
  to_epoch    bigint NOT NULL,
  fence       bigint NOT NULL,
  chunks      jsonb,                    -- [{table, chunk, rows, digest}], with done_at
  created_at  bigint NOT NULL,
  done_at     bigint,
  PRIMARY KEY (stream, fold)
);

-- An open cut holds folds back: a fold never crosses it.
CREATE TABLE cuts (
  id          text PRIMARY KEY,         -- the closing it belongs to
  epochs      jsonb  NOT NULL,          -- {stream: epoch}
  created_at  bigint NOT NULL,
  released_at bigint
);

CREATE TABLE alerts (
  id            text PRIMARY KEY,       -- stable over deliveries
  serial        bigint GENERATED ALWAYS AS IDENTITY UNIQUE,  -- order of recording, for Last-Event-ID; may have gaps
  type          text   NOT NULL,        -- alert.triggered | alert.resolved
  tenant        text   NOT NULL,
  contract      text   NOT NULL,
  item          text   NOT NULL,
  product       text   NOT NULL,
  metric        text   NOT NULL,
  period_from   bigint NOT NULL,
  period_to     bigint NOT NULL,
  threshold     text   NOT NULL,
  limit_version int    NOT NULL,
  limit_value   text,
  balance       text   NOT NULL,        -- quantity at the crossing, decimal text
  stream        int    NOT NULL,
  position      bigint NOT NULL,        -- log sequence of the crossing
  raised_at     bigint NOT NULL,
  sent_at       bigint,
  UNIQUE (type, tenant, item, metric, period_from, threshold, limit_version)
);
CREATE INDEX alerts_by_tenant ON alerts (tenant, serial);
CREATE INDEX alerts_unsent ON alerts (serial) WHERE sent_at IS NULL;
