/**
 * The `Spawn` port. No shell, a minimal environment, the value on stdin only (never argv,
 * never environment), a process group of its own that is ended as a whole and gone before
 * a call that was stopped is judged, output capped and stderr scrubbed of the value.
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

const DEFAULT_TIMEOUT_MS = 60_000
const DEFAULT_MAX_BYTES = 1024 * 1024
/** Time between the polite and the final signal. */
const MERCY_MS = 5_000
/**
 * After the program ended, a grandchild may keep the pipes open; we don't wait for it
 * longer than this.
 */
const DRAIN_MS = 1_000
/** A killed process is gone at once, unless the kernel still works for it. */
const GONE_MS = 5_000
const STDERR_BYTES = 64 * 1024
const STDERR_LINES = 20

export interface SpawnOptions {
  /** Read by main; bare program names are looked for here, and children get it. */
  readonly path: string
  readonly cwd: string
  readonly home?: string | undefined
  readonly lang?: string | undefined
  readonly tz?: string | undefined
}

/** The port for this environment. */
export function createSpawn(options: SpawnOptions): Spawn {
  return {
    resolve: (argv) => resolveArgv(argv, options),
    run: async (request) => {
      // Checked again at every start: what was safe when the schedule was set may not be
      // so now.
      const argv = await resolveArgv(request.argv, options)
      if (request.signal?.aborted === true)
        throw new AdapterError('failed', `interrupted before ${argv[0]} was started`, {
          retryable: false,
        })
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
  // `detached` makes a process group, so that a timeout also ends what the program
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
  // A program that does not read its input ends early; that is its right, and EPIPE no
  // failure.
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
    // The shell in between reports a signal as 128 + its number; one that we sent is
    // known.
    const ours = signal ?? group.seenIn(code)
    const said = stderr.bytes().toString('utf8')
    const secrets = request.secrets ?? (request.input === undefined ? [] : [request.input])
    const clean = scrub(said, secrets)
    return {
      code: ours === null ? code : null,
      signal: ours,
      timedOut,
      stdout: new Secret(stdout.bytes()),
      // Scrubbed before it is cut, so that no cut leaves half a value standing.
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

/** The program and everything it started, as far as that stayed in its process group. */
class Group {
  readonly #child: ChildProcess
  #killer: NodeJS.Timeout | undefined

  constructor(child: ChildProcess) {
    this.#child = child
  }

  /** Asks politely, and insists five seconds later. */
  end(): void {
    if (this.#killer !== undefined) return
    this.#signal('SIGTERM')
    this.#killer = setTimeout(() => this.#signal('SIGKILL'), MERCY_MS)
  }

  /**
   * Whatever outlived a timeout or an interruption is killed now, and waited for, so that
   * it does nothing more; without one it is left alone.
   */
  async finish(): Promise<void> {
    if (this.#killer === undefined) return
    clearTimeout(this.#killer)
    this.#signal('SIGKILL')
    for (let waited = 0; waited < GONE_MS && this.#lives(); waited += 10) await sleep(10)
  }

  /**
   * Of a process that is dead and not yet collected by its parent the system still says
   * that the group exists.
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

  /** The signal of ours that this exit code stands for, if we sent one. */
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

/** Empty for a process that is gone meanwhile. */
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
