/**
 * Where the vault and this program's state are: by flag or variable, otherwise as the XDG
 * base directory specification says;
 * https://specifications.freedesktop.org/basedir-spec/latest/
 */
import { isAbsolute, join, resolve } from 'node:path'
import { usage } from '../core/errors.ts'
import { fromEnv } from './env.ts'

type Env = Readonly<Record<string, string | undefined>>

/**
 * An XDG base directory: the variable if it is absolute (the specification ignores
 * relative ones), else the place below HOME.
 */
function base(env: Env, variable: string, below: string): string | undefined {
  const set = fromEnv(env, variable)
  if (set !== undefined && isAbsolute(set)) return set
  const home = fromEnv(env, 'HOME')
  return home === undefined || !isAbsolute(home) ? undefined : join(home, below)
}

/** The vault file: `--vault`, `ROTATE_VAULT`, the default place. */
export function vaultFile(flag: string | undefined, env: Env, cwd: string): string {
  if (flag === '') throw usage('--vault: the file name is empty')
  const given = flag ?? fromEnv(env, 'ROTATE_VAULT')
  if (given !== undefined) return resolve(cwd, given)
  const data = base(env, 'XDG_DATA_HOME', '.local/share')
  if (data === undefined) {
    throw usage(
      'there is no place for the vault: neither HOME nor XDG_DATA_HOME is set',
      'give --vault FILE or set ROTATE_VAULT',
    )
  }
  return join(data, 'rotate', 'vault.db')
}

/** The directory of locks and of what was last seen of each vault. */
export function stateDir(env: Env): string {
  const state = stateDirIfAny(env)
  if (state === undefined) {
    throw usage(
      'there is no place for locks: neither HOME nor XDG_STATE_HOME is set',
      'set XDG_STATE_HOME to a directory of your own',
    )
  }
  return state
}

/**
 * `undefined` where neither HOME nor XDG_STATE_HOME is set: nothing can be remembered
 * then.
 */
export function stateDirIfAny(env: Env): string | undefined {
  const state = base(env, 'XDG_STATE_HOME', '.local/state')
  return state === undefined ? undefined : join(state, 'rotate')
}
