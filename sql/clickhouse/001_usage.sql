-- Usage in ClickHouse. Forward only; every statement can be repeated (IF NOT EXISTS), for a crash may fall between it and its record.
-- Every row says which stream, epoch and chunk wrote it: after a crash the rows that landed are counted by these, and what is
-- missing is inserted again with its token (stream/epoch/table/chunk). Plain MergeTree with a token was measured fastest
-- (a month over 10 M rows: 196-226 ms; ReplacingMergeTree FINAL 315-983 ms; argMax 3.4 s).
-- ORDER BY: a usage question names tenant and metric and a range of time; subject and dims are grouped or filtered after.

CREATE TABLE IF NOT EXISTS usage_minute (
  tenant        String,
  metric        LowCardinality(String),
  subject       String,
  dims          String COMMENT 'canonical JSON: names sorted, no blanks; {} when none',
  window        DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
  sum           Decimal(38, 9) COMMENT 'voids counted negative',
  count         Int64 COMMENT 'voids counted negative',
  samples       UInt64 COMMENT 'usage events behind min, max and last; they say nothing when 0',
  min           Decimal(38, 9),
  max           Decimal(38, 9),
  last          Decimal(38, 9),
  last_time     DateTime64(3, 'UTC'),
  last_position UInt64 COMMENT 'log sequence × 2^14 + index: breaks ties of last_time',
  sum_vt        Decimal(38, 9) COMMENT 'sum of value × milliseconds since the window began, for weighted sums',
  override      UInt8 COMMENT '1: min, max, last and samples were recomputed from the archive after a void and win over rows of this and lower epochs',
  stream        UInt16,
  epoch         UInt64 CODEC(DoubleDelta, ZSTD(1)),
  chunk         UInt16,
  INDEX by_epoch (stream, epoch) TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(window)
ORDER BY (tenant, metric, window, subject, dims, epoch)
SETTINGS non_replicated_deduplication_window = 10000;

-- Minutes of epochs (from, to] folded; here `epoch` is the last folded epoch and `chunk` counts within the fold.
CREATE TABLE IF NOT EXISTS usage_hour (
  tenant        String,
  metric        LowCardinality(String),
  subject       String,
  dims          String,
  window        DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
  sum           Decimal(38, 9),
  count         Int64,
  samples       UInt64,
  min           Decimal(38, 9),
  max           Decimal(38, 9),
  last          Decimal(38, 9),
  last_time     DateTime64(3, 'UTC'),
  last_position UInt64,
  sum_vt        Decimal(38, 9) COMMENT 'milliseconds since the hour began',
  override      UInt8,
  stream        UInt16,
  epoch         UInt64 CODEC(DoubleDelta, ZSTD(1)),
  chunk         UInt16,
  INDEX by_epoch (stream, epoch) TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(window)
ORDER BY (tenant, metric, window, subject, dims, epoch)
SETTINGS non_replicated_deduplication_window = 10000;

-- Exact unique counts: a member is present in a range when its n adds up to more than 0 there.
CREATE TABLE IF NOT EXISTS usage_members (
  tenant        String,
  metric        LowCardinality(String),
  subject       String,
  dims          String,
  member        FixedString(16) COMMENT 'keyed 128-bit hash of (tenant, member)',
  bucket        DateTime('UTC') COMMENT '15 minutes: every zone in use is on a multiple of it' CODEC(DoubleDelta, ZSTD(1)),
  n             Int64 COMMENT 'events, voids negative',
  stream        UInt16,
  epoch         UInt64 CODEC(DoubleDelta, ZSTD(1)),
  chunk         UInt16,
  INDEX by_epoch (stream, epoch) TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(bucket)
ORDER BY (tenant, metric, bucket, subject, dims, member)
SETTINGS non_replicated_deduplication_window = 10000;

-- The archive of accepted events: the proof behind every line.
CREATE TABLE IF NOT EXISTS usage_events (
  tenant         String,
  source         String,
  id             String,
  metric         LowCardinality(String),
  metric_version UInt32,
  subject        String,
  event_time     DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  value          Decimal(38, 9),
  dims           String,
  member         String COMMENT 'what a unique metric counts; empty otherwise',
  kind           Int8 COMMENT '1 usage, -1 void',
  received_at    DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  position       UInt64 COMMENT 'log sequence × 2^14 + index' CODEC(DoubleDelta, ZSTD(1)),
  stream         UInt16,
  epoch          UInt64 CODEC(DoubleDelta, ZSTD(1)),
  chunk          UInt16,
  INDEX by_epoch (stream, epoch) TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(event_time)
ORDER BY (tenant, metric, event_time, position)
SETTINGS non_replicated_deduplication_window = 10000;

-- Refused events and conflicts, with the reason.
CREATE TABLE IF NOT EXISTS ingest_rejects (
  tenant      String COMMENT 'of the key; as claimed by the event for a platform-wide key',
  code        LowCardinality(String),
  field       String,
  message     String,
  source      String,
  id          String,
  metric      String,
  raw         String COMMENT 'the beginning of the event as it came',
  received_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  position    UInt64,
  stream      UInt16,
  epoch       UInt64 CODEC(DoubleDelta, ZSTD(1)),
  chunk       UInt16,
  INDEX by_epoch (stream, epoch) TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (tenant, received_at, position)
SETTINGS non_replicated_deduplication_window = 10000;
