/**
 * Runs the built program once and reports from inside that process: the files that it
 * loaded, Node's own modules, and its peak memory.
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const hook = fileURLToPath(new URL('at-exit.cjs', import.meta.url))
export const root = fileURLToPath(new URL('../..', import.meta.url))

export interface Look {
  /** The version of Node that ran. */
  readonly node: string
  readonly peakKiB: number
  /** The URLs of everything that Node's module loader read, in order. */
  readonly files: readonly string[]
  /** Node's list of its own loaded modules, such as `NativeModule fs`. */
  readonly builtins: readonly string[]
  readonly stdout: string
}

/**
 * Starts the program with `args` as the launcher does or, with `bare`, node itself with
 * `args`.
 */
export function look(
  args: readonly string[],
  { bare = false, env = {} }: { bare?: boolean; env?: NodeJS.ProcessEnv } = {},
): Look {
  const program = bare
    ? args
    : [
        '--disable-sigusr1',
        `${root}dist/${args[0] === 'get' || args[0] === 'run-due' ? 'short' : 'main'}.js`,
        ...args,
      ]
  const { status, stdout, stderr, output } = spawnSync(
    process.execPath,
    ['--require', hook, ...program],
    {
      env,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    },
  )
  if (status !== 0) throw new Error(`exit ${status}: ${stderr}`)
  return { ...(JSON.parse(output[3] ?? '') as Omit<Look, 'stdout'>), stdout }
}
