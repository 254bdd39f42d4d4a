-- A repair of surplus rows in ClickHouse, written before anything is deleted there, so that it can be ended after a crash.
CREATE TABLE repairs (
  table_name  text   NOT NULL,
  stream      int    NOT NULL,
  epoch       bigint NOT NULL,
  chunk       int    NOT NULL,
  rows        bigint NOT NULL,          -- what its checkpoint says
  started_at  bigint NOT NULL,
  PRIMARY KEY (table_name, stream, epoch, chunk)
);

-- Epochs up to this one were counted in ClickHouse after their checkpoint, and agreed.
ALTER TABLE streams ADD COLUMN verified_epoch bigint NOT NULL DEFAULT 0;
