/**
 * What CI runs behind the other tests (npm run test:crash): 30 random kills, every named point with a second kill, all mutants.
 * Two at a time, for they wait a lot. Flags as in crash.ts. The last line is «N passed, N failed».
 */
import { main } from './crash.js'

await main({ kills: 30, points: 'all', mutant: 'all', parallel: 2 })
