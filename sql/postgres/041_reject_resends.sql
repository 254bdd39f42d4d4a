-- Rejects (ingest_rejects in ClickHouse) that were mended, sent again and counted. A reject is named by where it stands:
-- receivedAt-position-stream, and c for a conflict or r for a refusal.
CREATE TABLE reject_resends (
  reject     text PRIMARY KEY,
  resent_at  bigint NOT NULL
);
