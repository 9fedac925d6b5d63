/** The short way of `get`, wired: with everything it needs, and nothing else, it is bundled into one file (see `shortWay` in test/tooling/build.ts). */
import { fastGet } from './cli/fast-get.ts'
import { systemClock, systemRandom } from './system.ts'
import { openVault } from './vault/open.ts'
import { readKeyFile } from './vault/key-file.ts'

/** The exit code, or `undefined` when the long way must be taken. */
export function get(argv: readonly string[], env: Readonly<Record<string, string | undefined>>, cwd: string): Promise<number | undefined> {
  return fastGet({ argv, env, cwd, clock: systemClock, random: systemRandom, openVault, readKeyFile })
}
