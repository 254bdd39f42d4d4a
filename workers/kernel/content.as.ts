/**
 * The content key of a series (src/dedupe/identity.ts): what the content tags of its events are hashed under. Part of the kernel;
 * knows the frame's tables and no layout. Dedupe needs it for each frame, the epoch keeps it beside each series.
 */
import { copy } from './bytes.as'
import { sip } from './sip.as'

/** A text with a u16 length in front becomes one with a u32; the place behind it. */
export function text32(out: usize, from: usize): usize {
  const length = load<u16>(from) as usize
  store<u32>(out, length as u32)
  copy(out + 4, from + 2, length)
  return out + 4 + length
}

/** The front of the text that is hashed, from a row of the metric table: shared by all series of the metric. */
export function contentHead(out: usize, metric: usize): usize {
  const end = text32(out, metric + 8)
  store<u32>(end, load<u32>(metric, 4))
  return end + 4
}

/**
 * Puts subject and dims behind the head, which begins at `text` and ends at `head`, and hashes all of it to the 16 bytes at `out`.
 * `subject`: where it stands in the series table. The host bounds all lengths.
 */
export function contentKey(key: usize, text: usize, head: usize, subject: usize, out: usize): void {
  let end = text32(head, subject)
  const dims = subject + 2 + (load<u16>(subject) as usize)
  const length = 4 + (load<u32>(dims) as usize)
  copy(end, dims, length)
  end += length
  sip(key, text, end - text, out)
}
