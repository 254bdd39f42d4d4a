-- Keys that end by themselves, that are rotated with an overlap, and that have limits of their own.
ALTER TABLE api_keys
  ADD COLUMN expires_at     bigint,             -- NULL: never
  ADD COLUMN rotated_at     bigint,
  ADD COLUMN previous_hash  bytea,              -- SHA-256 of the secret before the last rotation
  ADD COLUMN previous_until bigint,             -- until then that secret is valid too
  ADD COLUMN limits         jsonb NOT NULL DEFAULT '{}';  -- requestsPerSecond, eventsPerSecond, bytesPerSecond
