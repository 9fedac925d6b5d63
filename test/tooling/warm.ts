// Runs the short way of `get` once, as dist/get.js does, and keeps what V8 has compiled for it: node warm.ts BODY CACHE ARGUMENTS
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { Script } from 'node:vm'

const [body = '', cache = '', ...args] = process.argv.slice(2)
process.argv = [process.execPath, body, ...args]
const script = new Script(readFileSync(body, 'latin1'), { filename: body })
process.on('exit', (code) => {
  if (code === 0) writeFileSync(cache, script.createCachedData())
})
const run = script.runInThisContext() as (here: string, load: (specifier: string) => never) => Promise<void>
await run(dirname(body), (specifier) => {
  throw new Error(`the short way of get needs ${specifier}`)
})
