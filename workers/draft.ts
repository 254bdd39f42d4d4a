/** Thread entry for rating: a task is a list of contracts' terms and usage, the reply their drafts. Holds no state. */
import { type DraftResult, type DraftTask, draftBatch } from '../src/invoicing/draft-batch.js'

export default function run(tasks: readonly DraftTask[]): DraftResult[] {
  return draftBatch(tasks)
}
