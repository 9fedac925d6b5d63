/**
 * The short way of `get`, wired. The launcher starts this file instead of main.ts when the command is `get`; whatever it does not finish goes on there.
 * With everything it needs, and nothing else, it is bundled into one file (see `shortWay` in test/tooling/build.ts).
 */
import { fastGet } from './cli/fast-get.ts'
import { systemClock, systemRandom } from './system.ts'
import { readKeyFile } from './vault/key-file.ts'
import { openVault } from './vault/open.ts'

const ports = { clock: systemClock, random: systemRandom, openVault, readKeyFile }
const done = await fastGet({ argv: process.argv.slice(2), env: process.env, cwd: process.cwd(), ...ports })
if (done === undefined) await import('./main.ts')
else process.exit(done)
