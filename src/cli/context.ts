/**
 * What the handler of a command is given. Everything that costs time (the vault, chalk,
 * tables, questions) is loaded when it is first used.
 */
import { isatty } from 'node:tty'
import type { Deps } from '../app/base/deps.ts'
import type { OpenOptions } from '../app/vault/vaults.ts'
import { noFaults, type Clock, type Locks } from '../core/ports.ts'
import { fromEnv } from './env.ts'
import type { Globals } from './globals.ts'
import type { Host } from './host.ts'
import { Input } from './input.ts'
import { stateDir, stateDirIfAny, vaultFile } from './places.ts'
import { Out } from './render/out.ts'
import { Times } from './render/time.ts'
import { obtainUnlock } from './unlock.ts'

export interface Context {
  readonly globals: Globals
  readonly host: Host
  readonly out: Out
  readonly input: Input
  /** Dates for people. */
  readonly times: Times
  readonly clock: Clock
  /** Aborted by SIGINT, SIGTERM and `--timeout`. */
  readonly signal: AbortSignal
  /** `--actor`, `ROTATE_ACTOR`, or the system's user. */
  readonly actor: string
  /** The command line without values. */
  readonly command: string
  /** Absolute path of the vault file; `usage` when there is no place for one. */
  vaultFile(): string
  /**
   * Opens the vault at the first call and returns what use cases need; later calls return
   * the same. `readonly`: nothing will be written. `ask: false`: no question and no
   * warning.
   */
  deps(options?: DepsOptions): Promise<Deps>
  /**
   * What is needed to open a vault, for commands that do not open it by `deps`. `file`:
   * another file than the vault.
   */
  opening(file?: string, ask?: boolean): Promise<OpenOptions>
  close(): void
}

interface DepsOptions {
  readonly readonly?: boolean
  readonly ask?: boolean
  /** `report`: also open a vault that is older than what was seen on this machine. */
  readonly freshness?: 'report'
}

/**
 * Is this stream coloured? Decided by the flag, then FORCE_COLOR, then NO_COLOR and a
 * dumb terminal, then by whether it is a terminal.
 */
function coloured(fd: 1 | 2, globals: Globals, env: Host['env']): boolean {
  if (globals.color !== 'auto') return globals.color === 'always'
  const force = fromEnv(env, 'FORCE_COLOR')
  if (force !== undefined) return force !== '0' && force !== 'false'
  if (fromEnv(env, 'NO_COLOR') !== undefined || env['TERM'] === 'dumb') return false
  return isatty(fd)
}

export async function createOut(globals: Globals, env: Host['env']): Promise<Out> {
  const out = coloured(1, globals, env) && !globals.json
  const err = coloured(2, globals, env) && !globals.json
  const chalk = out || err ? new (await import('chalk')).Chalk({ level: 1 }) : undefined
  return new Out({
    json: globals.json,
    quiet: globals.quiet,
    verbose: globals.verbose,
    paint: { out: out ? chalk : undefined, err: err ? chalk : undefined },
  })
}

/** Looks for the lock directory only when a lock is needed. */
function lazyLocks(host: Host): Locks {
  let made: Promise<Locks> | undefined
  const locks = (): Promise<Locks> => (made ??= (async () => host.locks(stateDir(host.env)))())
  return {
    own: async () => (await locks()).own(),
    isGone: async (instance) => (await locks()).isGone(instance),
    tryNamed: async (name) => (await locks()).tryNamed(name),
  }
}

export function createContext(
  host: Host,
  globals: Globals,
  out: Out,
  command: string,
  signal: AbortSignal,
): Context {
  const { env, clock, random } = host
  const input = new Input({ allowed: globals.input, yes: globals.yes, env, signal })
  const zone = globals.utc ? 'UTC' : fromEnv(env, 'ROTATE_TZ')
  const times = new Times(() => clock.now(), zone)
  let opened: Deps | undefined
  const context: Context = {
    globals,
    host,
    out,
    input,
    times,
    clock,
    signal,
    get actor() {
      return globals.actor ?? host.user
    },
    command,
    vaultFile: () => vaultFile(globals.vault, env, host.cwd),
    async opening(file = context.vaultFile(), ask = true) {
      if (ask && fromEnv(env, 'ROTATE_PASSPHRASE') !== undefined && isatty(2)) {
        out.warn(
          'ROTATE_PASSPHRASE can be read by every process of this user; prefer ' +
            'ROTATE_PASSPHRASE_FILE or a key file',
        )
      }
      const door = await host.vaults()
      const asking = ask ? input : new Input({ allowed: false, yes: globals.yes, env, signal })
      const unlock = await obtainUnlock(file, globals, env, host.cwd, asking, door, signal)
      return {
        file,
        unlock,
        clock,
        random,
        stateDir: stateDirIfAny(env),
        ...(ask ? { warn: (text) => out.warn(text) } : {}),
      }
    },
    async deps(options) {
      if (opened !== undefined) return opened
      const opening = await context.opening(undefined, options?.ask !== false)
      const readonly = options?.readonly === true || globals.dryRun
      const { freshness } = options ?? {}
      const door = await host.vaults()
      const vault = await door.openVault({
        ...opening,
        freshness,
        ...(readonly ? { readonly } : {}),
      })
      opened = {
        clock,
        random,
        http: host.http,
        spawn: host.spawn,
        faults: noFaults,
        locks: lazyLocks(host),
        vault,
        actor: context.actor,
        reason: globals.reason,
        signal,
        pid: host.pid,
        self: host.self,
        command,
        note: (line) => out.note(line),
      }
      return opened
    },
    close() {
      opened?.vault.close()
      opened = undefined
    },
  }
  return context
}
