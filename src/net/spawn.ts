/**
 * The implementation of the port `Spawn`. There is no shell and a minimal environment.
 * The value comes on stdin only, never in arguments or the environment. Each program has
 * a process group of its own, which is ended as a whole; a call that was stopped is
 * judged only when its group is gone. The output is limited, and the value is removed
 * from stderr.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { AdapterError } from '../core/errors.ts'
import type { Spawn, SpawnRequest, SpawnResult } from '../core/ports.ts'
import { Secret } from '../core/secret.ts'
import { openOutputs, withRealStdin } from './pipes.ts'
import { resolveArgv } from './program.ts'
import { scrub } from './scrub.ts'
import { throwIfInterrupted } from './interrupt.ts'

const DEFAULT_TIMEOUT_MS = 60_000
const DEFAULT_MAX_BYTES = 1024 * 1024
/** The time between SIGTERM and SIGKILL. */
const MERCY_MS = 5_000
/**
 * How long output is read after the program has ended, because a grandchild may keep the
 * pipes open.
 */
const DRAIN_MS = 1_000
/**
 * How long a killed group is waited for. A killed process is gone at once, unless the
 * kernel still works for it.
 */
const GONE_MS = 5_000
const STDERR_BYTES = 64 * 1024
const STDERR_LINES = 20

export interface SpawnOptions {
  /**
   * The search path, which main reads: bare program names are looked for here, and
   * children get it.
   */
  readonly path: string
  readonly cwd: string
  readonly home?: string | undefined
  readonly lang?: string | undefined
  readonly tz?: string | undefined
}

/** The port `Spawn` for this environment. */
export function createSpawn(options: SpawnOptions): Spawn {
  return {
    resolve: (argv) => resolveArgv(argv, options),
    run: async (request) => {
      // The programs are checked again at every start: what was safe when the schedule
      // was set may not be safe any more.
      const argv = await resolveArgv(request.argv, options)
      throwIfInterrupted(request.signal, `${argv[0]} was started`)
      return run(argv, request, minimalEnv(options))
    },
  }
}

function minimalEnv({ path, home, lang, tz }: SpawnOptions): Record<string, string> {
  const env: Record<string, string> = { PATH: path }
  if (home !== undefined) env['HOME'] = home
  if (lang !== undefined) env['LANG'] = lang
  if (tz !== undefined) env['TZ'] = tz
  return env
}

async function run(
  argv: readonly [string, ...string[]],
  request: SpawnRequest,
  base: Record<string, string>,
): Promise<SpawnResult> {
  const program = argv[0]
  const [started, ...args] = request.input === undefined ? argv : withRealStdin(argv)
  const outputs = await openOutputs()
  // `detached` makes a process group, so that a time-out also ends what the program has
  // started.
  const child = spawn(started, args, {
    env: { ...base, ...request.env },
    stdio: [
      request.input === undefined ? 'ignore' : 'pipe',
      ...(outputs?.child ?? (['pipe', 'pipe'] as const)),
    ],
    detached: true,
    shell: false,
  })
  outputs?.release()
  const streams = [outputs?.stdout ?? child.stdout, outputs?.stderr ?? child.stderr].filter(
    (stream) => stream !== null,
  )
  const stdout = new Capture(request.maxBytes ?? DEFAULT_MAX_BYTES, 'head')
  const stderr = new Capture(STDERR_BYTES, 'tail')
  const group = new Group(child)
  let timedOut = false
  const deadline = setTimeout(() => {
    timedOut = true
    group.end()
  }, request.timeoutMs ?? DEFAULT_TIMEOUT_MS)
  const onAbort = (): void => group.end()
  request.signal?.addEventListener('abort', onAbort, { once: true })
  if (request.signal?.aborted === true) group.end()

  streams[0]?.on('data', (chunk: Buffer) => {
    stdout.add(chunk)
    if (stdout.overflowed) group.end()
  })
  streams[1]?.on('data', (chunk: Buffer) => stderr.add(chunk))
  const closed = Promise.all(streams.map((stream) => once(stream, 'close').catch(() => undefined)))
  // A program may end without reading its input. Then EPIPE is no failure.
  child.stdin?.on('error', () => undefined)
  if (request.input !== undefined) child.stdin?.end(Buffer.from(request.input.bytes()))

  const destroy = (): void => [child.stdin, ...streams].forEach((stream) => stream?.destroy())
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
    const drain = setTimeout(destroy, DRAIN_MS)
    await closed
    clearTimeout(drain)
    if (stdout.overflowed) {
      const message =
        `${program} wrote more than ${request.maxBytes ?? DEFAULT_MAX_BYTES} bytes to its ` +
        'standard output'
      throw new AdapterError('bad-answer', message, { effect: 'unknown' })
    }
    // The shell in between reports a signal as 128 plus its number. It is recognised
    // where this program has sent that signal.
    const ours = signal ?? group.seenIn(code)
    const said = stderr.bytes().toString('utf8')
    const secrets = request.secrets ?? (request.input === undefined ? [] : [request.input])
    const clean = scrub(said, secrets)
    return {
      code: ours === null ? code : null,
      signal: ours,
      timedOut,
      stdout: new Secret(stdout.bytes()),
      // The value is removed before the text is cut, so that no cut leaves half a value
      // standing.
      stderr: lastLines(clean),
      leaked: clean === said ? [] : secrets.filter((secret) => scrub(said, [secret]) !== said),
    }
  } catch (thrown) {
    if (thrown instanceof AdapterError) throw thrown
    throw new AdapterError(
      'misconfigured',
      `can't start ${program} (${(thrown as NodeJS.ErrnoException).code ?? 'unknown error'})`,
    )
  } finally {
    clearTimeout(deadline)
    request.signal?.removeEventListener('abort', onAbort)
    destroy()
    await group.finish()
  }
}

/**
 * The program and everything that it has started, as long as that stays in its process
 * group.
 */
class Group {
  readonly #child: ChildProcess
  #killer: NodeJS.Timeout | undefined

  constructor(child: ChildProcess) {
    this.#child = child
  }

  /** Sends SIGTERM, and SIGKILL five seconds later. */
  end(): void {
    if (this.#killer !== undefined) return
    this.#signal('SIGTERM')
    this.#killer = setTimeout(() => this.#signal('SIGKILL'), MERCY_MS)
  }

  /**
   * Kills what has outlived a time-out or an interrupt and waits until it is gone, so
   * that it does nothing more. A group that was not asked to end is left alone.
   */
  async finish(): Promise<void> {
    if (this.#killer === undefined) return
    clearTimeout(this.#killer)
    this.#signal('SIGKILL')
    for (let waited = 0; waited < GONE_MS && this.#lives(); waited += 10) await sleep(10)
  }

  /**
   * Whether a process of the group is alive. The system still reports a group whose
   * processes are dead and not yet collected by their parent, so their states are read.
   */
  #lives(): boolean {
    const { pid } = this.#child
    if (pid === undefined) return false
    try {
      process.kill(-pid, 0)
    } catch {
      return false
    }
    const states = statesIn(pid)
    return states === undefined || states.some((state) => state !== 'Z' && state !== 'X')
  }

  /** The signal for which this exit code stands, if this program has sent one. */
  seenIn(code: number | null): 'SIGTERM' | 'SIGKILL' | null {
    if (this.#killer === undefined) return null
    return code === 143 ? 'SIGTERM' : code === 137 ? 'SIGKILL' : null
  }

  #signal(signal: 'SIGTERM' | 'SIGKILL'): void {
    if (this.#child.pid === undefined) return
    try {
      process.kill(-this.#child.pid, signal)
    } catch {
      // The group is gone already.
    }
  }
}

/**
 * The state letters of the processes of a group (proc(5)); `undefined` where they can't
 * be read.
 */
function statesIn(group: number): readonly string[] | undefined {
  try {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .flatMap((pid) => {
        const [, state = '', pgrp] = /[^]*\) (\w) \d+ (\d+)/.exec(statOf(pid)) ?? []
        return Number(pgrp) === group ? [state] : []
      })
  } catch {
    return undefined
  }
}

/** The status of a process; empty where it has ended meanwhile. */
function statOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return ''
  }
}

/** A bounded buffer that keeps the beginning or the end of a stream. */
class Capture {
  overflowed = false
  readonly #limit: number
  readonly #keep: 'head' | 'tail'
  #chunks: Buffer[] = []
  #size = 0

  constructor(limit: number, keep: 'head' | 'tail') {
    this.#limit = limit
    this.#keep = keep
  }

  add(chunk: Buffer): void {
    if (this.#keep === 'head' && this.#size + chunk.length > this.#limit) {
      this.overflowed = true
      return
    }
    this.#chunks.push(chunk)
    this.#size += chunk.length
    while (this.#keep === 'tail' && this.#size > 2 * this.#limit && this.#chunks.length > 1)
      this.#size -= this.#chunks.shift()?.length ?? 0
  }

  bytes(): Buffer {
    return Buffer.concat(this.#chunks)
  }
}

function lastLines(text: string): string {
  return text.trimEnd().split(/\r?\n/).slice(-STDERR_LINES).join('\n').slice(-4096)
}
