/**
 * The log: the truth. Everything to its right is a function of it.
 *
 * This is the port. It has two real sides: local segment files (log/files.ts) and, for many nodes, NATS JetStream (later). A
 * stream is an independent sequence of records; a record is one frame (frame.ts), opaque here. Sequences start at 1 and have
 * no gap.
 */
export interface LogRecord {
  /** Position in the stream, from 1, without a gap. Exact below 2^39, so that position × 2^14 + index stays a safe integer. */
  readonly sequence: number
  /** Epoch milliseconds, never falling within a stream. */
  readonly receivedAt: number
  /** The frame. Owned by the reader; it may share one buffer with its neighbours, and begins at a multiple of 8 in it. */
  readonly payload: Uint8Array
}

export interface StreamState {
  /** First sequence still held; last + 1 when nothing is held. */
  readonly first: number
  /** Last sequence on disk; 0 when the stream never had one. */
  readonly last: number
  /** Disk that the stream takes, space made ready for later records included. */
  readonly bytes: number
}

/** Records that were acknowledged and cannot be read any more. Never skipped in silence. */
export interface LostRange {
  readonly stream: number
  readonly from: number
  readonly to: number
  readonly reason: string
}

export interface Log {
  /**
   * Resolves after the record is on disk (fdatasync), with its sequence; many waiting appends share one sync. Appends of one
   * stream get sequences in call order. `receivedAt` below the stream's last one is raised to it.
   * The payload must not change until then.
   * Rejects with ReleveError `overloaded` when the queue or the disk bound is full (nothing was written), and with `unavailable`
   * after a failed sync: then nothing is known about the record and the stream takes no more until the log is opened again.
   */
  append(stream: number, receivedAt: number, payload: Uint8Array): Promise<{ sequence: number; receivedAt: number }>
  /**
   * Whole records from `from` on, in order, until about `bytesMax`; at least one if there is one. Only what is on disk. Goes on
   * behind deleted records and behind a lost range: then the sequences show the gap and lost() names it.
   */
  read(stream: number, from: number, bytesMax: number): Promise<LogRecord[]>
  state(stream: number): StreamState
  /** Deletes whole segments whose records all lie below `sequence`. */
  deleteBelow(stream: number, sequence: number): Promise<void>
  /** Acknowledged records found damaged, by opening or by a read since. Empty on a healthy log. */
  lost(): readonly LostRange[]
  /** Waits for what is queued, then closes the files. */
  close(): Promise<void>
}
