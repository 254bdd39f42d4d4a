/** `releve demo`: the whole road on a directory and a clock of its own. */
import { type DemoOptions, runDemo } from '../../demo/demo.js'

export async function demoCommand(options: DemoOptions): Promise<number> {
  return runDemo(options)
}
