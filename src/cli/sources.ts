/**
 * Finds what opens the vault: flags, then environment, then systemd credentials; a
 * question on /dev/tty comes last (unlock.ts). The first source that is named decides. If
 * it fails the others are not tried: a typo must not silently use another key.
 */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { usage } from '../core/errors.ts'
import { fromEnv } from './env.ts'
import type { Globals } from './globals.ts'

export type UnlockSource =
  | { readonly kind: 'key-file'; readonly path: string; readonly from: string }
  | { readonly kind: 'passphrase-file'; readonly path: string; readonly from: string }
  | { readonly kind: 'passphrase-command'; readonly command: string; readonly from: string }
  | { readonly kind: 'passphrase-fd'; readonly fd: number; readonly from: string }
  | { readonly kind: 'passphrase-env'; readonly from: string }

type NamedSources = Pick<
  Globals,
  'keyFile' | 'passphraseFile' | 'passphraseCommand' | 'passphraseFd'
>
type Env = Readonly<Record<string, string | undefined>>

/**
 * The source that flags and environment name, if any. Two flags contradict each other.
 */
export function findSource(globals: NamedSources, env: Env, cwd: string): UnlockSource | undefined {
  const flags: UnlockSource[] = []
  if (globals.keyFile !== undefined)
    flags.push({ kind: 'key-file', path: resolve(cwd, globals.keyFile), from: '--key-file' })
  if (globals.passphraseFile !== undefined)
    flags.push({
      kind: 'passphrase-file',
      path: resolve(cwd, globals.passphraseFile),
      from: '--passphrase-file',
    })
  if (globals.passphraseCommand !== undefined)
    flags.push({
      kind: 'passphrase-command',
      command: globals.passphraseCommand,
      from: '--passphrase-command',
    })
  if (globals.passphraseFd !== undefined)
    flags.push({ kind: 'passphrase-fd', fd: globals.passphraseFd, from: '--passphrase-fd' })
  if (flags.length > 1)
    throw usage(
      `${flags.map((flag) => flag.from).join(' and ')} contradict each other`,
      'give one of them',
    )
  if (flags[0] !== undefined) return flags[0]

  const keyFile = fromEnv(env, 'ROTATE_KEY_FILE')
  if (keyFile !== undefined)
    return { kind: 'key-file', path: resolve(cwd, keyFile), from: 'ROTATE_KEY_FILE' }
  const passphraseFile = fromEnv(env, 'ROTATE_PASSPHRASE_FILE')
  if (passphraseFile !== undefined)
    return {
      kind: 'passphrase-file',
      path: resolve(cwd, passphraseFile),
      from: 'ROTATE_PASSPHRASE_FILE',
    }
  const command = fromEnv(env, 'ROTATE_PASSPHRASE_COMMAND')
  if (command !== undefined)
    return { kind: 'passphrase-command', command, from: 'ROTATE_PASSPHRASE_COMMAND' }
  if (fromEnv(env, 'ROTATE_PASSPHRASE') !== undefined)
    return { kind: 'passphrase-env', from: 'ROTATE_PASSPHRASE' }

  const credentials = fromEnv(env, 'CREDENTIALS_DIRECTORY')
  if (credentials === undefined) return undefined
  const key = join(credentials, 'rotate.key')
  if (existsSync(key))
    return { kind: 'key-file', path: key, from: '$CREDENTIALS_DIRECTORY/rotate.key' }
  const passphrase = join(credentials, 'rotate.passphrase')
  if (existsSync(passphrase))
    return {
      kind: 'passphrase-file',
      path: passphrase,
      from: '$CREDENTIALS_DIRECTORY/rotate.passphrase',
    }
  return undefined
}
