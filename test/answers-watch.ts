/** For `node --import`: the answers of a service that is a process of its own are checked too. Its threads answer nothing. */
import { isMainThread } from 'node:worker_threads'

if (isMainThread) await import('./answers-check.js')
