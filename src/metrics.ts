/**
 * Counters, gauges and histograms by name, for Prometheus. Every drop, refusal, retry and lag has one. Labels are bounded:
 * never a tenant, a subject or an id.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

export type Metrics = ReturnType<typeof openMetrics>

export function openMetrics() {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 10 })
  const registers = [registry]
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> =>
    new Counter({ name, help, labelNames, registers })
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[] = []): Gauge<L> =>
    new Gauge({ name, help, labelNames, registers })
  const histogram = <L extends string>(
    name: string,
    help: string,
    buckets: number[],
    labelNames: readonly L[] = [],
  ): Histogram<L> => new Histogram({ name, help, buckets, labelNames, registers })

  const seconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
  const metrics = {
    registry,
    // The books, since the process started; the durable ones are in the checkpoints.
    received: counter('releve_events_received_total', 'Events that came in, whatever became of them'),
    stored: counter('releve_events_stored_total', 'Events that the door let in and the log has'),
    refused: counter('releve_events_refused_total', 'Events refused at the door', ['code']),
    plainParts: gauge('releve_shard_plain', '1 when a part of a shard works without the kernel, several times slower', [
      'stream',
      'part',
    ]),
    plain: counter('releve_events_plain_total', 'Events that the plain path judged instead of the kernel'),
    accepted: counter('releve_events_accepted_total', 'Events counted in rollups'),
    duplicates: counter('releve_events_duplicate_total', 'Events known already'),
    conflicts: counter('releve_events_conflict_total', 'Known identities with another content'),
    requestsRefused: counter('releve_requests_refused_total', 'Whole requests refused', ['code']),
    authFailures: counter('releve_auth_failures_total', 'Requests without a valid key'),
    authThrottled: counter('releve_auth_throttled_total', 'Those that came from an address with too many of them'),
    // The door and the log.
    ackSeconds: histogram('releve_ack_seconds', 'From the first byte of a body worked on to on disk', seconds),
    judgeSeconds: histogram('releve_judge_seconds', 'Decoding and judging a body in the shard thread', seconds),
    inflightBytes: gauge('releve_inflight_bytes', 'Bodies being worked on'),
    logBytes: gauge('releve_log_bytes', 'Log on disk', ['stream']),
    logLag: gauge('releve_log_lag_records', 'Records on disk that the shard has not applied yet', ['stream']),
    logLost: gauge('releve_log_lost_records', 'Acknowledged records that cannot be read any more', ['stream']),
    loopDelay: gauge('releve_event_loop_delay_seconds', 'How late the main thread came, since the last scrape', [
      'quantile',
    ]),
    gcPause: histogram(
      'releve_gc_pause_seconds',
      'Stops of the main thread for its garbage',
      [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2],
      ['kind'],
    ),
    // Dedupe.
    dedupeIds: gauge('releve_dedupe_ids', 'Ids remembered', ['stream']),
    dedupeMemoryIds: gauge('releve_dedupe_memory_ids', 'Ids, and voids, in memory', ['stream']),
    dedupeDiskIds: gauge('releve_dedupe_disk_ids', 'Ids, and voids, in runs on disk', ['stream']),
    dedupeBytes: gauge('releve_dedupe_bytes', 'Memory of the ids', ['stream']),
    dedupeRuns: gauge('releve_dedupe_runs', 'Runs of ids on disk: each is asked for an id that memory does not know', [
      'stream',
    ]),
    dedupeRunBytes: gauge('releve_dedupe_run_bytes', 'Memory of the filters of the runs', ['stream']),
    dedupeFilterHits: gauge('releve_dedupe_filter_hits', 'Ids that a filter let through, since the start', ['stream']),
    dedupePageReads: gauge('releve_dedupe_page_reads', 'Pages of runs read for them, since the start', ['stream']),
    dedupeWindowSeconds: gauge(
      'releve_dedupe_window_seconds',
      'How far back ids are remembered; +Inf when nothing was ever forgotten',
      ['stream'],
    ),
    lateSeconds: gauge('releve_late_seconds', 'L in force: older events are refused', ['stream']),
    // Epochs.
    applySeconds: histogram('releve_apply_seconds', 'One hand-over of records to a shard', seconds),
    epochs: counter('releve_epochs_total', 'Epochs with a checkpoint', ['stream']),
    flushSeconds: histogram(
      'releve_flush_seconds',
      'From seal to checkpoint',
      [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
    ),
    flushRetries: counter('releve_flush_retries_total', 'Steps of a flush done again', ['step']),
    rows: counter('releve_rows_total', 'Rows written to ClickHouse', ['table']),
    surplus: counter('releve_surplus_rows_total', 'Rows of a chunk beyond its checkpoint: repaired and alarmed'),
    folds: counter('releve_folds_total', 'Folds of minutes into hours', ['stream']),
    flushLagSeconds: gauge('releve_flush_lag_seconds', 'Age of the oldest record that is not in a checkpoint', [
      'stream',
    ]),
    // Quotas and alerts.
    alerts: counter('releve_alerts_total', 'Alerts recorded', ['type']),
    sseStreams: gauge('releve_sse_streams', 'Open alert streams'),
    sseDropped: counter('releve_sse_dropped_total', 'Alert streams closed because the reader was too slow'),
    reserveSeconds: histogram(
      'releve_reserve_seconds',
      'From the request for a reservation to its answer, within the service',
      [0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1],
    ),
    quotaChecks: counter('releve_quota_checks_total', 'Answers to «may this tenant use n more»', ['why']),
    reservations: counter('releve_reservations_total', 'Reservations by what became of them', ['outcome']),
    reservationsKnown: gauge('releve_reservations_known', 'Reservations in memory, ended ones included'),
    // Delivery.
    deliveries: counter('releve_deliveries_total', 'Attempts to tell an endpoint', ['channel', 'outcome']),
    deliveriesWaiting: gauge('releve_deliveries_waiting', 'Deliveries that wait for their first or next attempt'),
    deliveryAgeSeconds: gauge('releve_delivery_age_seconds', 'Age of the oldest delivery that waits'),
    deadLetters: gauge('releve_dead_letters', 'Deliveries that were given up and can be replayed'),
    // NATS.
    natsMessages: counter('releve_nats_messages_total', 'Messages that came in', ['via', 'outcome']),
    natsConnections: counter('releve_nats_connections_total', 'Connections made, the first one included'),
    natsStalls: counter(
      'releve_nats_stalls_total',
      'Connections given up because nothing came though something waited',
    ),
    natsSlow: counter(
      'releve_nats_slow_consumer_total',
      'Connections that the server cut off without a word, as it does with a slow consumer',
    ),
    natsWaiting: gauge('releve_nats_waiting', 'Messages of tenants beyond their rates that come again at their turn'),
    natsAlerts: counter('releve_nats_alerts_total', 'Alerts handed to the server'),
    natsStreamBytes: gauge('releve_nats_stream_bytes', 'Bytes that wait in the stream of the server'),
    natsUp: gauge('releve_nats_up', '1 when the door is connected'),
    // Engines.
    engineUp: gauge('releve_engine_up', '1 when the engine answers', ['engine']),
    engineRestarts: counter('releve_engine_restarts_total', 'Restarts of an embedded engine', ['engine']),
  }
  // A series that begins above zero shows no rise: what an alert or a panel waits for is there from the start.
  metrics.requestsRefused.inc({ code: 'overloaded' }, 0)
  for (const type of ['alert.triggered', 'alert.resolved']) metrics.alerts.inc({ type }, 0)
  return metrics
}
