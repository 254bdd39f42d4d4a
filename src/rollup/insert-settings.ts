/** What every insert of a chunk says to ClickHouse, whoever sends it (rollup.ts, archive-send.ts): its token, and that it is one block. */
import { limits } from '../limits.js'

export const insertSettings = (token: string) =>
  ({
    insert_deduplication_token: token,
    insert_deduplicate: '1',
    async_insert: '0',
    // One block a chunk, so that one token stands for all of it.
    max_insert_block_size: String(4 * limits.chunkRowsMax),
    min_insert_block_size_rows: String(4 * limits.chunkRowsMax),
    input_format_parallel_parsing: '0',
  }) as const
