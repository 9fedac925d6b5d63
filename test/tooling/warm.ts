// Runs the short ways (`get` and an idle `run-due`) once each, as dist/short.js does, and
// saves the bytecode that V8 has compiled for them: node warm.ts BODY CACHE ARGUMENTS…,
// each a JSON list
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { Script } from 'node:vm'

const [body = '', cache = '', ...ways] = process.argv.slice(2)
const script = new Script(readFileSync(body, 'latin1'), { filename: body })
const run = script.runInThisContext() as (
  here: string,
  load: (specifier: string) => never,
) => Promise<void>

/**
 * Thrown in place of the end of the process that a body asks for when it is done, so that
 * the next body can follow.
 */
class Done extends Error {}
process.exit = ((code: number) => {
  throw new Done(String(code))
}) as typeof process.exit

for (const way of ways) {
  process.argv = [process.execPath, body, ...(JSON.parse(way) as string[])]
  try {
    await run(dirname(body), (specifier) => {
      throw new Error(`the short way of ${way} needs ${specifier}`)
    })
  } catch (end) {
    if (!(end instanceof Done) || end.message !== '0') throw end
  }
}
writeFileSync(cache, script.createCachedData())
