/**
 * Turns the source that was named (sources.ts), or an answer on /dev/tty, into what opens
 * the vault.
 */
import { existsSync, statSync } from 'node:fs'
import type { Unlock, VaultDoor } from '../app/vault/vaults.ts'
import { RotateError } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import { Secret } from '../core/secret.ts'
import type { Globals } from './globals.ts'
import { chomp, codeOf, type Input } from './input.ts'
import { findSource, type UnlockSource } from './sources.ts'

const MAX_PASSPHRASE = 64 * 1024
const COMMAND_TIMEOUT_MS = 60_000

type Env = Readonly<Record<string, string | undefined>>

function failed(message: string, hint?: string): RotateError {
  return new RotateError('unlock-failed', message, hint === undefined ? {} : { hint })
}

/** A source that can't be read is an `unlock-failed`; an interruption stays one. */
function unread(error: unknown, from: string): RotateError {
  if (error instanceof RotateError)
    return error.code === 'usage' ? failed(error.message, error.hint) : error
  return failed(`${from} can't be read`)
}

/**
 * Runs the operator's own command by the shell, as `ROTATE_PASSPHRASE_COMMAND` gives it;
 * its stderr goes to ours. The first line that it prints is the passphrase: password
 * managers print notes below.
 */
async function fromCommand(command: string, from: string, signal: AbortSignal): Promise<Secret> {
  const { spawn } = await import('node:child_process')
  const child = spawn('/bin/sh', ['-c', command], { stdio: ['ignore', 'pipe', 'inherit'], signal })
  let late = false
  // What the shell has started may outlive it and keep the pipe open: nobody waits for
  // that.
  const timer = setTimeout(() => {
    late = true
    child.kill()
    child.stdout.destroy()
  }, COMMAND_TIMEOUT_MS)
  const chunks: Buffer[] = []
  let size = 0
  child.stdout.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size > MAX_PASSPHRASE) child.kill()
    else chunks.push(chunk)
  })
  const code = await new Promise<number | null>((done, reject) => {
    child.once('error', (error) =>
      reject(
        signal.aborted
          ? signal.reason
          : failed(`${from}: the command can't be run (${codeOf(error)})`),
      ),
    )
    child.once('close', done)
  }).finally(() => clearTimeout(timer))
  if (late)
    throw failed(`${from}: the command printed nothing for ${COMMAND_TIMEOUT_MS / 1000} seconds`)
  if (size > MAX_PASSPHRASE)
    throw failed(`${from}: the command printed more than ${MAX_PASSPHRASE} bytes`)
  if (code !== 0)
    throw failed(`${from}: the command failed (${code === null ? 'killed' : `exit ${code}`})`)
  return firstLine(Buffer.concat(chunks))
}

function firstLine(bytes: Buffer): Secret {
  const end = bytes.indexOf(10)
  return chomp(new Secret(end < 0 ? bytes : bytes.subarray(0, end + 1)))
}

async function fromFile(path: string, from: string, input: Input): Promise<Secret> {
  const shown = visible(path, 200)
  let mode: number
  try {
    const stat = statSync(path)
    if (stat.isDirectory()) throw failed(`${from}: ${shown} is a directory`)
    mode = stat.isFile() ? stat.mode & 0o077 : 0
  } catch (error) {
    if (error instanceof RotateError) throw error
    throw failed(`${from}: ${shown} can't be read (${codeOf(error)})`)
  }
  if (mode !== 0) throw failed(`${from}: ${shown} can be read by others`, `chmod 600 ${shown}`)
  try {
    return await input.file(path, from, { limit: MAX_PASSPHRASE, extent: 'line' })
  } catch (error) {
    throw unread(error, from)
  }
}

/**
 * Reads a passphrase from its source; one trailing newline is not part of it.
 * `unlock-failed` when it can't be had or is empty.
 */
export async function readPassphrase(
  source: Exclude<UnlockSource, { readonly kind: 'key-file' }>,
  input: Input,
  env: Env,
  signal: AbortSignal,
): Promise<Secret> {
  let passphrase: Secret
  switch (source.kind) {
    case 'passphrase-file':
      passphrase = chomp(await fromFile(source.path, source.from, input))
      break
    case 'passphrase-command':
      passphrase = await fromCommand(source.command, source.from, signal)
      break
    case 'passphrase-fd':
      try {
        passphrase = chomp(await input.descriptor(source.fd, source.from, MAX_PASSPHRASE))
      } catch (error) {
        throw unread(error, source.from)
      }
      break
    case 'passphrase-env':
      passphrase = new Secret(env['ROTATE_PASSPHRASE'] ?? '')
      break
    default:
      return source satisfies never
  }
  if (passphrase.size === 0) throw failed(`${source.from}: the passphrase is empty`)
  // The same letters typed on two keyboards must give the same key.
  return passphrase.isText() ? new Secret(passphrase.reveal().normalize('NFC')) : passphrase
}

/** Does it look like a recovery key? Such a text is never taken for a passphrase. */
export function isRecoveryText(text: Secret): boolean {
  return /^\s*rr1-/i.test(text.reveal())
}

/**
 * Turns a passphrase into what opens the vault; a recovery key may be given wherever a
 * passphrase is.
 */
async function asUnlock(passphrase: Secret, door: VaultDoor): Promise<Unlock> {
  if (isRecoveryText(passphrase))
    return { kind: 'recovery', key: await door.parseRecoveryKey(passphrase) }
  return { kind: 'passphrase', passphrase }
}

/**
 * Obtains what opens this vault. The vault must exist: nobody is asked for the passphrase
 * of nothing.
 */
export async function obtainUnlock(
  file: string,
  globals: Globals,
  env: Env,
  cwd: string,
  input: Input,
  door: VaultDoor,
  signal: AbortSignal,
): Promise<Unlock> {
  const source = findSource(globals, env, cwd)
  if (source?.kind === 'key-file') {
    if (!existsSync(file)) await door.inspectVault(file)
    return { kind: 'key-file', key: await door.readKeyFile(source.path) }
  }
  const { unlockers } = await door.inspectVault(file)
  if (source !== undefined) return asUnlock(await readPassphrase(source, input, env, signal), door)
  const asked = await input.passphrase('Passphrase')
  if (asked !== undefined) {
    if (asked.size === 0) throw failed('the passphrase is empty')
    return asUnlock(asked, door)
  }
  const kinds = [...new Set(unlockers.map((unlocker) => unlocker.kind))].join(', ')
  throw failed(
    `the vault is sealed and nothing was given to open it (it has: ${kinds})`,
    'give --key-file F, --passphrase-file F, --passphrase-command CMD or --passphrase-fd N, ' +
      'or set ROTATE_KEY_FILE',
  )
}
