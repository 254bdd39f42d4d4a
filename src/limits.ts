/**
 * Every maximum, what it costs, and how the limits depend on each other. Raw numbers live nowhere else. What an operator may
 * change is a default here and a key in config.ts with its own bounds.
 */
import { assert } from './assert.js'

const KiB = 1024
const MiB = 1024 * KiB
const MINUTE = 60_000
const DAY = 86_400_000

export const limits = {
  // The door.
  /** Events of one request. */
  batchEventsMax: 10_000,
  /** Body of one request, before and after decompression: a gzip bomb stops here. */
  bodyBytesMax: 16 * MiB,
  /** JSON nesting. An event needs 3 levels (array, event, dims), a CloudEvent's data may have a few more. */
  jsonDepthMax: 32,
  /** UTF-8 bytes of an id; long enough for two UUIDs and a host name. */
  idBytesMax: 256,
  /** UTF-8 bytes of tenant, source, metric, subject, one dimension's name or value. */
  nameBytesMax: 256,
  /** Dimensions of one event; each metric names its own, so this bounds a metric as well. */
  dimsMax: 16,
  /** Dimension values whose JSON text the door of one thread remembers; about 200 bytes each, and all are dropped at the bound. */
  dimTextsMax: 32_768,
  /** Refusals that an answer spells out; all of them are counted and kept. */
  answerRefusalsMax: 100,
  /** Raw text of a refused event that is kept for the operator, bytes. */
  refusalRawBytesMax: 512,
  /** The same for all refusals of one request; behind it they carry none. With it a record of refusals alone fits recordBytesMax. */
  requestRawBytesMax: 2 * MiB,
  /** Bodies inflated at once; each may take bodyBytesMax. As many as there are threads that inflate. */
  inflatingMax: 4,
  /** Bodies being worked on at once, bytes; above it new ones get 503 with Retry-After. Resident memory is about three times. */
  inflightBytesMax: 256 * MiB,

  // Keys.
  /** Keys that are not revoked; all are held in memory, about 500 bytes each. */
  keysMax: 10_000,
  /** How long the secret before a rotation stays valid, unless said otherwise; and at most. */
  keyOverlapMs: 1 * DAY,
  keyOverlapMsMax: 30 * DAY,
  /** A rate of one key: requests, events or bytes a second. Above it a limit means nothing. */
  keyRateMax: 1_000_000_000,
  /** Attempts without a valid key that an address has at once; one more comes back each second. */
  failedAttemptsMax: 20,
  /** Tenants whose rate is being counted, about 500 bytes each; at the bound the one that came least lately begins anew. */
  tenantBudgetsMax: 10_000,
  /** Addresses with failed attempts that are remembered, about 150 bytes each; at the bound the oldest is forgotten. */
  failedAddressesMax: 10_000,

  // Cardinality.
  /** Names (series, subjects, metrics, dimension values) of limited tenants that one shard remembers for a month; about 50 bytes each. */
  cardinalityNamesMax: 2_000_000,

  // Age of an event (architecture.md, «Verdicts and books»).
  /** L: an event older than this, by its eventTime, is refused as too_old. */
  lateMs: 34 * DAY,
  /** F: an event further ahead than this is refused as too_far_ahead. */
  aheadMs: 1 * DAY,

  // The log.
  /** One segment file; preallocated, so this much disk is taken at once. */
  segmentBytes: 64 * MiB,
  /** The first segment after opening; the following ones are four times larger each, up to segmentBytes. */
  segmentFirstBytes: 1 * MiB,
  /** One record: one request's part for one stream, as a frame. A frame is never larger than the body it came from plus this. */
  recordBytesMax: 24 * MiB,
  /** Files of deleted segments kept for the next ones, per stream; they count as disk of the log. */
  logReusableMax: 8,
  /** Log on disk per stream; above it ingest answers 503 instead of dropping old records. */
  logBytesMax: 16 * 1024 * MiB,
  /** Appends waiting for the group commit, bytes per stream. */
  logQueueBytesMax: 64 * MiB,
  /** Frames kept in memory between log and shard; above it the shard reads the log from disk. */
  tailBytesMax: 64 * MiB,

  // Epochs.
  /** An epoch is sealed after this long, if anything came. */
  epochMs: 5_000,
  /** An epoch is sealed at this many stored events: bounds the memory of its archive rows (about 120 bytes each). */
  epochEventsMax: 500_000,
  /** An epoch is sealed at this many encoded bytes of archive and reject rows: bounds epochs of wide events and of refusals. */
  epochBytesMax: 128 * MiB,
  /** Sealed epochs of a stream whose flush has not ended; above it the shard stops applying and the log grows. */
  epochsInFlightMax: 2,
  /**
   * Rows of one insert. Of the archive as unsorted rows, ClickHouse took CPU ns a row to insert and merge: 1,680 in chunks of 100,000 and
   * 1,130 in chunks of 500,000; LowCardinality for source, dims and member made it 2,030 and 1,270, LZ4 everywhere 1,050 and 40 % more
   * disk. What it takes since rows come sorted: rollup/README.md.
   */
  chunkRowsMax: 500_000,
  /** Shared memory for rows of the archive, from the shard's thread to the archive's: one block of the kernel. */
  archiveBlockBytes: MiB,
  /** Threads that sort and send the archive, for all streams; each keeps the memory of its largest chunk while it lives. */
  archiveThreadsMax: 4,
  /** Epochs that one fold takes from minutes to hours. */
  foldEpochsMax: 720,
  /** Epochs since the last fold whose windows are known one by one; 20 are between two folds unless a cut holds them up. */
  unfoldedEpochsMax: 64,
  /** Insert tokens that a table remembers (non_replicated_deduplication_window in sql/clickhouse). */
  tokenWindowBlocks: 10_000,
  /** One insert or query of the flush path; after it the flush is repeated with the same token. */
  insertTimeoutMs: 30_000,
  /** Between two epochs of a stream that end only because a preview is asked for. */
  freshEveryMs: 1_000,
  /** For which a preview waits until what was stored before it is counted; then 503. */
  freshWaitMs: 10_000,
  /** Lease of a stream after a takeover. */
  leaseMs: 15_000,

  // Dedupe.
  /** Ids that a restore takes in at a time, about 2 ms. Nothing else happens meanwhile. */
  restoreSliceIds: 10_000,
  /** The same while the table's memory is untouched: nearly each id brings a page of its own in, 2 to 13 µs as the table is larger. */
  restoreFirstSliceIds: 1_000,
  /** Length of a generation of ids, by receivedAt. */
  generationMs: 1 * DAY,
  /** Generations that may live at once; the number is one byte in the table. */
  generationsMax: 200,
  /** Ids in memory per shard, 17.5 bytes each; at 80 % the oldest generations go to disk. */
  dedupeIdsMax: 64_000_000,
  /** What an operator may set it to: the kernel has 4 GiB of addresses. */
  dedupeIdsCeiling: 160_000_000,
  /**
   * Disk of the runs per shard, bytes: 17.6 an id, and a quarter more while one is built; each id there takes 1.5 bytes of
   * memory. At 80 % of all ids the oldest generation is announced for dropping, and the age limit L shrinks with it.
   */
  dedupeDiskBytes: 16 * 1024 * MiB,
  /** Ids of one run: its filter, 1.5 bytes each, lies in one kernel memory of 4 GiB, here and while it is built. */
  dedupeRunIdsMax: 1_000_000_000,
  /** Hash keys of origins, and of tenants, kept per shard; about 150 bytes each. Beyond it they are derived again. */
  dedupeKeysMax: 20_000,

  // Aggregation.
  /** Series (tenant, metric, subject, dims) that one epoch may touch; at it the epoch is sealed early. */
  epochSeriesMax: 200_000,
  /** Members of exact unique counts held live, per shard; beyond it a quota reads ClickHouse and shows its age. */
  liveMembersMax: 4_000_000,
  /** Quota balances held live, per shard (items × periods still open or in grace). */
  liveBalancesMax: 1_000_000,
  /** Balances whose usage one query reads at start. */
  basesMax: 2_000,
  /** Thresholds of one quota. */
  thresholdsMax: 25,

  /** Alert rules in all, held in memory; about 500 bytes each. */
  alertRulesMax: 50_000,
  /** Steps of a recurring rule that one change of usage tells, the highest ones. */
  stepsToldMax: 100,
  /** Metrics whose items are looked at for their thresholds in one tick of a stream; the others in the next. */
  itemAlertsPerLook: 500,
  /** Of a period, in which the one before is looked at too. */
  itemAlertsLastMs: 60 * MINUTE,
  /** Nothing is forecast in the first 1/n of a period. */
  forecastParts: 20,
  /** Between two looks at forecasts and silences: how late they may be told. */
  alertTickMs: 15_000,
  /** Shortest and longest silence that a rule may name. */
  silenceMinMs: 1 * MINUTE,
  silenceMaxMs: 90 * DAY,
  /** Subjects whose silence is watched, of all tenants; about 200 bytes each. Beyond it new ones are not, and health says so. */
  silentSubjectsMax: 200_000,
  /** Tenants whose usage a shard tells after each frame, for checks and reservations; the one that was asked for least lately goes. */
  guardedTenantsMax: 10_000,

  /** Limits that were set, held in memory; about 200 bytes each. */
  usageLimitsMax: 200_000,
  /** Reservations in memory, ended ones that are still known included; about 250 bytes each, outside of the heap. */
  reservationsMax: 500_000,
  /** An ended reservation is known for this long, unless a new one needs its room: for requests that are sent again. */
  reservationKeptMs: 10 * MINUTE,
  /** Longest lease. */
  leaseSecondsMax: 86_400,
  /** Records of the journal behind which a long lease is written again, so that what lies before it can go. */
  reservationJournalSpan: 50_000,
  /** Of those at one tidying. */
  reservationsRewrittenMax: 1_000,
  /** The journal on disk; full only when tidying has failed for long. */
  reservationJournalBytesMax: 1024 * MiB,
  reservationSegmentBytes: 8 * MiB,
  /** What is written to the journal is synced to the disk within this time; a power cut may take so much (not a kill). */
  reservationSyncMs: 250,

  // Threads.
  /** Streams of one process, each with a thread. */
  streamsMax: 64,
  /** Tasks that wait for one shard's thread; bodies and records are handed over one or two at a time, questions as they come. */
  shardTasksMax: 100_000,
  /** Memory that the main thread and a shard share for bodies and frames: two being judged, the others being written to the log. */
  slabs: 6,
  /** One of them: bodies in its front half, their frames behind. What a small request waits for at most is the judging of two. */
  slabBytes: 2 * MiB,
  /** Frames from this size on lie in memory that is used again, so much of it of each power of two: what is in the log's hands at once. */
  pooledFrameBytesMin: 16 * 1024,
  pooledFramesMax: 16,
  /** Tasks of bodies given to one shard's thread: the second one so that it never waits for the main thread. */
  judgeTasksMax: 2,
  /** A body up to this size is judged together with others that came meanwhile: one record of the log, one frame. */
  smallBodyBytes: 64 * KiB,
  /** So many small bodies make a task while the one before is on its way to the disk; fewer wait for it. */
  smallBodiesTogether: 64,
  /** Bodies that wait for one shard, beside their bytes (inflightBytesMax). */
  bodiesWaitingMax: 20_000,

  // NATS.
  /** One message: what a publisher may send at once. Below the server's own default of 1 MiB. */
  natsMessageBytesMax: 512 * KiB,
  /** One pull from the stream. Measured: with 46 MB in flight a server called its consumer slow and the pull hung. */
  natsPullBytesMax: 4 * MiB,
  /** Pulls at once: while the messages of one are being written to the log, the next ones are on their way. */
  natsPullsMax: 2,
  /** Messages of one pull. */
  natsPullMessagesMax: 512,
  /** A pull that has not been filled ends after this long, and the next one begins. */
  natsPullMs: 5_000,
  /** Without an acknowledgement for this long the server delivers a message again. */
  natsAckWaitMs: 30_000,
  /** Messages of tenants beyond their rates that the server keeps until their turn; it looks through all of them each time. */
  natsWaitingMax: 4_096,
  /** Furthest turn: a rate that was raised acts on what waits within this time. */
  natsWaitMsMax: 60_000,
  /** Messages delivered and not acknowledged, those that wait for their turn included; at it the server waits. */
  natsAckPendingMax: 6_144,
  /** A message that cannot be taken now comes again after this long. */
  natsRetryMs: 1_000,
  /** Silence after which the door asks the server whether anything waits; with a yes, or no answer, it connects anew. */
  natsStallMs: 30_000,
  /** A pull that ended at once with nothing is followed by the next one after this long. */
  natsPullPauseMs: 100,
  /** For how long health tells that the server cut a slow connection off. */
  natsSlowToldMs: 10 * MINUTE,
  /** Default size of the stream that is created; when it is full the server refuses publishers, it drops nothing. */
  natsStreamBytesMax: 1024 * MiB,
  /** Fullness of the stream, in percent, from which health warns: when it is full, publishers over MQTT are not told. */
  natsStreamWarnPercent: 80,
  /** Between two looks at it. */
  natsStreamLookMs: 30_000,
  /** Between two attempts to connect. */
  natsReconnectMs: 1_000,
  /** A question to the server's JetStream. */
  natsTimeoutMs: 5_000,

  // The client (releve/client), in the sender's process.
  /** One event as JSON, about; a batch is sealed when it has as much, so it has twice as much at most. */
  clientEventJsonMax: 1.25 * MiB,
  /** A sealed batch over HTTP without its last event, bytes counted by characters: three times as much in UTF-8 is still a body. */
  clientBatchBytesMax: 4 * MiB,
  /** The same two over NATS, where a body is a message. */
  clientNatsEventJsonMax: 12 * KiB,
  clientNatsBatchBytesMax: 156 * KiB,
  /** Sealed batches that wait or are under way, bytes; a setting. Beyond it `send` waits or refuses. */
  clientMemoryBytesMax: 64 * MiB,
  /** Calls of `send` that wait for room; beyond it `send` refuses. */
  clientWaitingMax: 10_000,
  /** One segment of the spool; after a crash at most so much is sent twice, for nothing. */
  clientSegmentBytes: 8 * MiB,
  /** The spool on disk; a setting. */
  clientSpoolBytesMax: 1024 * MiB,
  /** Tries of a batch before it goes to the spool. */
  clientTriesInMemory: 3,
  /** Between two tries: the first wait, doubled up to the last one, unless the service says how long. */
  clientRetryFirstMs: 100,
  clientRetryLastMs: 10_000,
  /** A `Retry-After` longer than this is cut: the service may be back earlier than it thought. */
  clientRetryAfterMaxMs: 60_000,
  /** One request, until its answer. */
  clientTimeoutMs: 30_000,
  /** An answer of the service: 100 refusals of some KiB. */
  clientAnswerBytesMax: 4 * MiB,

  // Delivery: webhooks and e-mail.
  /** Endpoints in all, held in memory; about 1 KiB each. */
  endpointsMax: 10_000,
  /** Endpoints of one tenant, or of the platform. */
  tenantEndpointsMax: 32,
  /** A disk with less than this is told by health and doctor. */
  diskLowBytes: 2_000_000_000,
  /** A flush that takes longer is told by health: several epochs, and more than one insert may take. */
  flushLateMs: 30_000,
  /** Characters of a webhook's URL. */
  urlMax: 2_048,
  /** Kinds of events, metrics or rules that one endpoint names. */
  endpointFiltersMax: 100,
  /** Deliveries that wait for one endpoint; beyond it they are dead letters at once, and can be replayed. */
  endpointQueueMax: 10_000,
  /** Attempts at one endpoint at once: what a slow receiver may hold. */
  endpointInFlightMax: 4,
  /** Attempts at webhooks in all, each a socket; many slow receivers at once then wait for each other. */
  webhooksInFlightMax: 256,
  /** Connections to the SMTP server. */
  emailsInFlightMax: 8,
  /** Tests of endpoints that are under way. */
  pingsMax: 16,
  /** From the name's resolution to the status line. */
  webhookTimeoutMs: 15_000,
  /** Connection, greeting and silence of the SMTP server, each. */
  smtpTimeoutMs: 20_000,
  /** Waits before the attempts after the first, give or take 20 %; about three days in all. After the last one it is a dead letter. */
  deliveryRetryMs: [
    5_000,
    30_000,
    2 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    2 * 60 * MINUTE,
    5 * 60 * MINUTE,
    10 * 60 * MINUTE,
    DAY,
    DAY,
  ] as readonly number[],
  /** A receiver's Retry-After counts up to here. */
  retryAfterMaxMs: 1 * DAY,
  /** An endpoint where nothing was delivered for this long is disabled with its next dead letter. */
  endpointFailingMs: 5 * DAY,
  /** A delivery that waits for longer is told by health. */
  deliveryLateMs: 60 * MINUTE,
  /** What was delivered is kept for this long, dead letters for longer. */
  deliveredKeptMs: 7 * DAY,
  deadLettersKeptMs: 30 * DAY,
  /** Longest time that a rotated secret signs beside the new one. */
  secretOverlapMaxMs: 7 * DAY,
  /** Alerts handed to their deliveries before the place is noted: after a crash so many are looked at again. */
  feedPageMax: 100,
  /** Between two looks whether something else happened that is to be told. */
  outboxLookMs: 1_000,

  // Answers.
  /** Rows of one usage answer. */
  usageRowsMax: 100_000,
  /** Hours, days or months of one usage answer. Their starts go to ClickHouse as one parameter, which it takes up to 128 KiB. */
  usageWindowsMax: 10_000,
  /** Refused events sent again by one request; each answer waits until they are counted. */
  resendMax: 1_000,
  /** A request that is being answered when the service stops has so long; then its connection is cut, and it was not acknowledged. */
  stopRequestsMs: 5_000,
  /** Open SSE streams. */
  sseStreamsMax: 1_000,
  /** Messages waiting for one slow SSE reader; above it the stream is closed and the reader resumes with Last-Event-ID. */
  sseBacklogMax: 1_000,
  /** Alerts of one page. */
  pageMax: 1_000,

  // Engines.
  /** Start of an embedded engine until it answers. */
  engineStartMs: 60_000,
  /** Restarts of an engine that keeps dying, within engineRestartWindowMs; above it the service says FATAL and exits. */
  engineRestartsMax: 10,
  /** Between two questions to an engine outside whether it is there. */
  outsideAskMs: 10_000,
  engineRestartWindowMs: 5 * MINUTE,
  /** Graceful end of an embedded engine; after it, SIGKILL. */
  engineStopMs: 10_000,
  /** Memory that the embedded ClickHouse may take (max_server_memory_usage); a query beyond it fails, the server lives on. */
  clickhouseMemoryBytes: 4 * 1024 * MiB,
  /** Sockets to ClickHouse from one process. */
  clickhouseConnectionsMax: 16,
  /** Connections to PostgreSQL from one process; each is a backend of 5-10 MB. */
  postgresConnectionsMax: 16,
  /** Wait for a free connection of the pool, and for a new one to be made. */
  postgresConnectMs: 10_000,
  /** One statement in PostgreSQL; a transaction that does nothing is ended after the same time. */
  postgresStatementMs: 30_000,
  /** Graceful stop: drain, seal, checkpoint; after it the process exits and the log replays at the next start. */
  stopMs: 30_000,

  // Prices and invoices.
  /** Tiers of one price rule. */
  tiersMax: 100,
  /** Prepaid packs of a contract that hold something; a closing debits them one by one. */
  packsMax: 1_000,
  /** Customers' metrics whose items are remembered as they stood: those that are shared or have packs, while somebody asks. */
  liveItemsMax: 1_000,
  /** Those that are neither, whose items are not looked at again in that time: about 100 bytes each. */
  livePlainMax: 100_000,
  /** How long they are remembered, unless an epoch ends before: objects that come or go are no change of the catalogue. */
  liveItemsMs: 5_000,
  /** Parts into which packs cut a period: each is counted by a question of its own. */
  packCutsMax: 100,
  /** Different amounts of the events of a period whose price has bounds per event; kept with the closing, 40 bytes each. */
  eventValuesMax: 10_000,
  /** Lines and usage entries of one invoice; detail beyond it is an extract, not a document. */
  invoiceLinesMax: 10_000,
  /** Metrics of one plan, entitlements of one contract item. */
  planMetricsMax: 200,
  /** Plans of one comparison, each with all its metrics; as many as a person looks at. */
  comparedPlansMax: 20,
  /** Items of one contract. */
  contractItemsMax: 1_000,
  /** How far ahead a move of a contract may be dated. */
  moveAheadMs: 366 * DAY,
  /** Subjects that one contract item names; a fleet has its own table. */
  itemSubjectsMax: 1_000,
  /** Connected objects of one request. */
  objectsBatchMax: 10_000,
  /** How far back the last event of a meter is looked for. */
  meterLookBackMs: 35 * DAY,
  /** Object items that a closing reads, and writes the charges of, at once. */
  objectsPageMax: 2_000,
  /** Objects of the catalogue of one kind; they are all held in memory. */
  catalogObjectsMax: 200_000,
  /** Customers of one import. */
  customersBatchMax: 10_000,
  /** Periods of one schedule: fifty years. */
  scheduleMonthsMax: 600,
  /** Earlier periods that a closing counts again for late usage: more than the age limit L reaches, for imports. */
  latePeriodsMax: 3,
  /** Tenants' metrics that one question counts for closings. */
  measureGroupMax: 5_000,
  /** Contracts of one chunk of a batch closing: one transaction, about 20 KiB each. */
  closeChunkMax: 500,
  /** Chunks of a batch closing that are worked on at once. */
  closeChunksInFlightMax: 3,
  /** Contracts of one task for a rating thread. */
  draftTaskMax: 125,
  /** Failures that the report of a batch closing spells out; all are counted. */
  closeFailuresMax: 100,
  /** Usage data of one metric that a statement prints; all are behind the line. */
  statementDataMax: 50,
  /** Of a text at the foot of a document. */
  mentionCharactersMax: 600,
  /** Between two looks at trials that are over; they end on days. */
  trialSweepMs: 60 * MINUTE,
  /** Trials that one sweep moves, each in a transaction of its own: a few seconds. */
  trialSweepMax: 1_000,
  /** Between two looks at prepaid packs that are over, and how many of them one question reads. */
  packSweepMs: 60 * MINUTE,
  packSweepMax: 1_000,
  /** Usage data that a printed invoice shows in all: a few pages. */
  printedDataMax: 200,
  /** UTF-8 bytes of a description or a note of a usage datum. */
  usageDataTextMax: 4_000,
  /** UTF-8 bytes of the JSON of a usage datum. */
  usageDataJsonBytesMax: 16 * KiB,
  /** JSON records that one calculator runs over in a period, inside the closing's transaction: about a second. */
  usageDataJsonPerPeriodMax: 100_000,
  /** Usage data of one request. */
  usageDataBatchMax: 1_000,
  /** A file of usage data: about ten million rows. It waits on disk, not in memory. */
  importBytesMax: 1024 * MiB,
  /** Rows of one transaction of an import. */
  importBatchRows: 5_000,
  /** One row of a file. */
  importRowBytesMax: 64 * KiB,
  importColumnsMax: 200,
  /** Characters of a refused row that the journal keeps. */
  importRawCharactersMax: 200,
  /** Imports that are received or read at once. */
  importsMax: 4,
  /** Drafts that are made again at once because usage data came; the others are, before they are issued. */
  redraftMax: 20,
  /** Periods of one contract that a shadow rating rates: two years of months. */
  shadowPeriodsMax: 24,
  /** Contracts of one page of it; with all their periods they are counted in a few questions. */
  shadowContractsMax: 200,
  /** One call of a clearance system, until its answer has come whole. */
  certifyTimeoutMs: 30_000,
  /** What is kept of its answer, and of its words when it refuses. */
  certifyAnswerBytesMax: 4 * MiB,
  certifyReasonMax: 500,
  /** Before the second attempt of a document that was surely not taken; doubled each time, up to the maximum. */
  certifyRetryMs: 5_000,
  certifyRetryMaxMs: 60 * MINUTE,
  /** Between two looks whether something is due, at most. */
  certifyWaitMaxMs: MINUTE,
  /** Lines that a printed invoice shows before they are grouped. */
  printedLinesMax: 50,

  // Periods.
  /** After a period's end, late events still enter it; then it is closed at a cut. */
  graceMs: 60 * MINUTE,
} as const

// The relations. A changed number that breaks one of them stops the process at import.
assert(limits.recordBytesMax > limits.bodyBytesMax, 'a record must hold the largest body')
assert(limits.natsMessageBytesMax < limits.bodyBytesMax, 'a message is a body')
assert(limits.smallBodyBytes <= limits.slabBytes / 4, 'a slab must hold several small bodies')
assert(
  limits.natsPullBytesMax >= 4 * limits.natsMessageBytesMax &&
    limits.natsPullsMax * limits.natsPullBytesMax <= 16 * MiB,
  'a pull holds several of the largest messages, and all of them stay where no stall was seen',
)
assert(
  12 * limits.clientEventJsonMax <= limits.bodyBytesMax,
  'a batch of the client is a body when written as JSON, also with every character escaped',
)
assert(
  3 * (limits.clientBatchBytesMax + limits.clientEventJsonMax) <= limits.bodyBytesMax &&
    3 * (limits.clientNatsBatchBytesMax + limits.clientNatsEventJsonMax) <= limits.natsMessageBytesMax,
  'a batch of the client is a body, and over NATS a message',
)
assert(limits.natsStallMs > limits.natsPullMs, 'a quiet pull is no stall')
assert(
  limits.natsAckPendingMax >= limits.natsWaitingMax + (1 + limits.natsPullsMax) * limits.natsPullMessagesMax,
  'messages that wait for their turn must leave room for those of others',
)
assert(limits.segmentBytes > 2 * limits.recordBytesMax, 'a segment must hold more than two of the largest records')
assert(limits.segmentFirstBytes <= limits.segmentBytes, 'segments grow from the first size to the full one')
assert(limits.logQueueBytesMax > limits.recordBytesMax, 'the commit queue must hold the largest record')
assert(limits.logBytesMax >= 8 * limits.segmentBytes, 'the log must hold several segments')
assert(limits.batchEventsMax < 1 << 14, 'a position is sequence × 2^14 + index within the record')
assert(limits.epochEventsMax >= limits.batchEventsMax, 'an epoch must hold the largest batch')
assert(limits.generationsMax < 256, 'a generation number is one byte')
assert(
  limits.generationMs * (limits.generationsMax / 2) > limits.lateMs + limits.aheadMs,
  'half of the generations must cover L + F: the other half is for generations that are full before their day ends',
)
assert(
  limits.engineStopMs < limits.stopMs,
  'the graceful stop of the service must leave time for the stop of its engines',
)
assert(limits.latePeriodsMax * 28 * DAY > limits.lateMs, 'late usage must be found by the closings of the next periods')
// The token window must be ten times the blocks that may be inserted between a manifest and the end of the old owner's
// insert: (lease + insert time-out) / epoch length × blocks an epoch can make in one partition of one table.
const blocksPerEpoch = Math.ceil((2 * limits.epochEventsMax) / limits.chunkRowsMax)
assert(
  limits.tokenWindowBlocks >=
    10 * Math.ceil((limits.leaseMs + limits.insertTimeoutMs) / limits.epochMs) * blocksPerEpoch,
  'the token window of the tables is too small for the lease and the insert time-out',
)
