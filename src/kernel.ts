/**
 * Kernel: loads dist/workers/kernel.wasm (workers/kernel/*.as.ts) for the rooms that have a fast way through it. The module is
 * compiled once a thread; every caller gets an instance of its own, with its own memory.
 *
 * It knows no layout and no room: each room names the exports that it calls.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { workersDirectory } from './paths.js'

export interface KernelMemory {
  readonly buffer: ArrayBuffer
  grow(pages: number): number
}

/** A constant that the kernel exports. */
export interface KernelConstant {
  readonly value: number
}

/** The little of the global object that is used; Node's types leave it to those of browsers. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object
  readonly Instance: new (module: object, imports: object) => { readonly exports: unknown }
}

const PAGE_BYTES = 65_536
const file = join(workersDirectory, 'kernel.wasm')
let module: object | undefined

/** A fresh instance, or null when the kernel was not built (`npm run build:kernel`). `Exports` is the caller's own claim. */
export function openKernel<Exports extends { readonly memory: KernelMemory }>(): Exports | null {
  if (module === undefined) {
    if (!existsSync(file)) return null
    module = new WebAssembly.Module(readFileSync(file))
  }
  return new WebAssembly.Instance(module, {}).exports as Exports
}

/** Makes the memory reach up to `end`; what is new is zero. True when it grew, and every view of it must be made again. */
export function growTo(memory: KernelMemory, end: number): boolean {
  const missing = end - memory.buffer.byteLength
  if (missing <= 0) return false
  memory.grow(Math.ceil(missing / PAGE_BYTES))
  return true
}
