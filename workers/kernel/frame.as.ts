/**
 * A frame in kernel memory: where its sections lie (src/frame.ts has the picture). Part of the kernel, for the rooms behind the
 * log. A frame was judged at the door and is read behind a checksum; `open` checks all the same, once a section and not for an
 * event, that no section reaches outside of it. The callers walk the tables with their ends in hand.
 */
import { SLACK } from './bytes.as'

/** Origins and series of one frame: at most its events, and limits.batchEventsMax is at most this. */
export const FRAME_EVENTS_MAX: u32 = 10_000

export let events: u32 = 0
export let metricCount: u32 = 0
export let originCount: u32 = 0
export let seriesCount: u32 = 0
export let receivedAt: f64 = 0
export let metricsAt: usize = 0
export let metricsEnd: usize = 0
export let originsAt: usize = 0
export let originsEnd: usize = 0
export let seriesAt: usize = 0
export let seriesEnd: usize = 0
export let times: usize = 0
export let values: usize = 0
export let seriesOf: usize = 0
export let originOf: usize = 0
export let idEnds: usize = 0
export let memberEnds: usize = 0
export let kinds: usize = 0
export let ids: usize = 0
export let idBytes: u32 = 0
export let members: usize = 0
export let memberBytes: u32 = 0

function pad8(n: u64): u64 {
  return (n + 7) & ~(7 as u64)
}

/** False when the bytes are not a whole frame. SLACK bytes stand behind it. */
export function open(at: usize, length: usize): bool {
  if (length < 72 || load<u32>(at) !== 0x314d5246) return false
  events = load<u32>(at, 4)
  metricCount = load<u32>(at, 8)
  originCount = load<u32>(at, 12)
  seriesCount = load<u32>(at, 16)
  if (events > FRAME_EVENTS_MAX || metricCount > events || originCount > events || seriesCount > events) return false
  const metricBytes = load<u32>(at, 20) as u64
  const originBytes = load<u32>(at, 24) as u64
  const seriesBytes = load<u32>(at, 28) as u64
  idBytes = load<u32>(at, 32)
  memberBytes = load<u32>(at, 36)
  const refusalBytes = load<u32>(at, 40) as u64
  receivedAt = load<f64>(at, 56)
  const n = events as u64
  const words = pad8(4 * n)
  // In 64 bits: no sum can wrap, and when the whole is right every part is inside.
  const whole =
    72 +
    pad8(metricBytes) +
    pad8(originBytes) +
    pad8(seriesBytes) +
    16 * n +
    4 * words +
    pad8(n) +
    pad8(idBytes as u64) +
    pad8(memberBytes as u64) +
    pad8(refusalBytes)
  if (whole !== (length as u64)) return false
  metricsAt = at + 72
  metricsEnd = metricsAt + (metricBytes as usize)
  originsAt = metricsAt + (pad8(metricBytes) as usize)
  originsEnd = originsAt + (originBytes as usize)
  seriesAt = originsAt + (pad8(originBytes) as usize)
  seriesEnd = seriesAt + (seriesBytes as usize)
  times = seriesAt + (pad8(seriesBytes) as usize)
  values = times + 8 * (events as usize)
  seriesOf = values + 8 * (events as usize)
  originOf = seriesOf + (words as usize)
  idEnds = originOf + (words as usize)
  memberEnds = idEnds + (words as usize)
  kinds = memberEnds + (words as usize)
  ids = kinds + (pad8(n) as usize)
  members = ids + (pad8(idBytes as u64) as usize)
  return true
}

/** Whether a text with a u16 length in front ends before `end`. */
export function fits16(at: usize, end: usize): bool {
  return at + 2 <= end && at + 2 + (load<u16>(at) as usize) <= end
}

export function fits32(at: usize, end: usize): bool {
  return at + 4 <= end && (load<u32>(at) as usize) <= end - at - 4
}

/** Bytes that must stand behind a frame. */
export const FRAME_SLACK: usize = SLACK
