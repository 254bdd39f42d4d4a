/** Thread entry for rating: a task is a list of contracts' terms and usage, the reply their drafts. Holds no state. */
import { move, transferableSymbol, valueSymbol } from 'piscina'
import { type DraftTask, draftBatch } from '../src/invoicing/draft-batch.js'

export default function run(tasks: readonly DraftTask[]): unknown {
  const reply = draftBatch(tasks)
  return move({ [transferableSymbol]: [reply.bytes.buffer as ArrayBuffer], [valueSymbol]: reply as object })
}
