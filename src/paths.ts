/** Where the parts that are not JavaScript lie. Compiled files run from dist/src, so the root is two folders up. */
import { fileURLToPath } from 'node:url'

export const rootDirectory: string = fileURLToPath(new URL('../../', import.meta.url))
export const sqlDirectory: string = fileURLToPath(new URL('../../sql/', import.meta.url))
/** The compiled thread entries (dist/workers). */
export const workersDirectory: string = fileURLToPath(new URL('../workers/', import.meta.url))
