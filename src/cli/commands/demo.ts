/** `releve demo`: placeholder until the demo room lands. */
export async function demoCommand(_: { exit: boolean; events: number; data: string }): Promise<number> {
  process.stderr.write('cannot run the demo: it is not built yet\n')
  return 1
}
