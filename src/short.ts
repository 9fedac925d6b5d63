/**
 * The composition root of the short way. The launcher starts this file instead of main.ts
 * for `get` and `run-due`, the commands that are called most. What they can't finish here
 * goes on in main.ts. The file is bundled with everything it needs, and nothing else,
 * into one file (see `shortWay` in test/tooling/build.ts).
 */
import { fastGet } from './cli/fast-get.ts'
import { fastRunDue } from './cli/fast-run-due.ts'
import { systemClock, systemRandom } from './system.ts'
import { readKeyFile } from './vault/key-file.ts'
import { openVault } from './vault/open.ts'

const ports = { clock: systemClock, random: systemRandom, openVault, readKeyFile }
const host = { argv: process.argv.slice(2), env: process.env, cwd: process.cwd(), ...ports }
const done = await (host.argv[0] === 'get' ? fastGet(host) : fastRunDue(host))
if (done === undefined) await import('./main.ts')
else process.exit(done)
