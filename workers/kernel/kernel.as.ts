/**
 * Kernel: the hot path as WebAssembly, one module for all rooms. This file only gathers what the host may call.
 *
 * There is no runtime, no collector and no object: every file lays out its own memory and says so in a picture. An instance
 * serves one room (src/ingest/kernel-door.ts has one), so that each memory has one owner and one layout. Whatever the kernel
 * does not handle with certainty it gives back to the plain TypeScript path, which is its oracle.
 */

export { resumeColumnar, runColumnar } from './columnar.as'
export {
  DEDUPE_FIXED_BYTES,
  DEDUPE_KEYS,
  DEDUPE_PARTITIONS_MAX,
  dedupeAccepted,
  dedupeAdd,
  dedupeBehind,
  dedupeCapacity,
  dedupeClear,
  dedupeCount,
  dedupeDrop,
  dedupeIsDead,
  dedupeJudge,
  dedupeKeys,
  dedupeLastTime,
  dedupeLayOut,
  dedupeSweep,
  dedupeTouched,
  dedupeVoid,
  dedupeVoided,
  dedupeVoids,
} from './dedupe.as'
export {
  addDim,
  addMetric,
  addTenant,
  begin,
  eventAt,
  FIXED_BYTES,
  findTenant,
  frameBytes,
  layOut,
  push,
  received,
  refusalsAt,
  STREAMS_MAX,
  streamEvents,
  textsAt,
  writeFrame,
} from './door.as'
export {
  EPOCH_BLOCKS,
  EPOCH_FRAME,
  EPOCH_FRAME_BYTES,
  EPOCH_MEMBER_KEY,
  EPOCH_ROWS_MAX,
  EPOCH_SERIES_MAX,
  epochAccepted,
  epochApply,
  epochArchived,
  epochBytes,
  epochChunk,
  epochChunkRows,
  epochClear,
  epochDuplicates,
  epochEncode,
  epochFirstBlock,
  epochFirstOverride,
  epochFreeBlock,
  epochLayOut,
  epochMembers,
  epochMinute,
  epochMinutes,
  epochNames,
  epochNextOverride,
  epochOpen,
  epochRows,
  epochSeries,
  epochVoids,
} from './epoch.as'
export { resumeJson, resumeLines, runJson, runLines } from './json.as'
export { defineRecord, recordAt, resumeMsgpack, runMsgpack } from './msgpack.as'
