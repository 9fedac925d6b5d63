/**
 * The `Spawn` port. No shell, a minimal environment, the value on stdin only (never argv, never environment), a process group of its own that
 * is ended as a whole, output capped and stderr scrubbed of the value.
 */
import { spawn } from 'node:child_process'
import { AdapterError } from '../core/errors.ts'
import type { Spawn, SpawnRequest, SpawnResult } from '../core/ports.ts'
import { Secret } from '../core/secret.ts'
import { resolveArgv } from './program.ts'
import { scrub } from './scrub.ts'

const DEFAULT_TIMEOUT_MS = 60_000
const DEFAULT_MAX_BYTES = 1024 * 1024
/** Time between the polite and the final signal. */
const MERCY_MS = 5_000
/** After the program ended, a grandchild may keep the pipes open; we don't wait for it longer than this. */
const DRAIN_MS = 1_000
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
      // Checked again at every start: what was safe when the schedule was set may not be so now.
      const argv = await resolveArgv(request.argv, options)
      if (request.signal?.aborted === true)
        throw new AdapterError('failed', `interrupted before ${argv[0]} was started`, { retryable: false })
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

function run(argv: readonly [string, ...string[]], request: SpawnRequest, base: Record<string, string>): Promise<SpawnResult> {
  const { promise, resolve, reject } = Promise.withResolvers<SpawnResult>()
  const [program, ...args] = argv
  const env: Record<string, string> = { ...base, ...request.env }
  // `detached` makes a process group, so that a timeout also ends what the program started.
  const child = spawn(program, args, { env, stdio: ['pipe', 'pipe', 'pipe'], detached: true, shell: false })
  const stdout = new Capture(request.maxBytes ?? DEFAULT_MAX_BYTES, 'head')
  const stderr = new Capture(STDERR_BYTES, 'tail')
  let timedOut = false
  let killer: NodeJS.Timeout | undefined
  let drain: NodeJS.Timeout | undefined

  const signalGroup = (signal: 'SIGTERM' | 'SIGKILL'): void => {
    if (child.pid === undefined) return
    try {
      process.kill(-child.pid, signal)
    } catch {
      // The group is gone already.
    }
  }
  const end = (): void => {
    if (killer !== undefined) return
    signalGroup('SIGTERM')
    killer = setTimeout(() => signalGroup('SIGKILL'), MERCY_MS)
  }
  const deadline = setTimeout(() => {
    timedOut = true
    end()
  }, request.timeoutMs ?? DEFAULT_TIMEOUT_MS)
  request.signal?.addEventListener('abort', end, { once: true })

  const settled = (): void => {
    clearTimeout(deadline)
    clearTimeout(drain)
    request.signal?.removeEventListener('abort', end)
  }
  child.on('error', (error: NodeJS.ErrnoException) => {
    settled()
    clearTimeout(killer)
    reject(new AdapterError('misconfigured', `can't start ${program} (${error.code ?? 'unknown error'})`))
  })
  child.on('exit', () => {
    drain = setTimeout(() => {
      child.stdout.destroy()
      child.stderr.destroy()
    }, DRAIN_MS)
  })
  child.on('close', (code, signal) => {
    settled()
    // Whatever of the group outlived a timeout or an interruption is ended now; without one it is left alone.
    if (killer !== undefined) {
      clearTimeout(killer)
      signalGroup('SIGKILL')
    }
    if (stdout.overflowed) {
      const message = `${program} wrote more than ${request.maxBytes ?? DEFAULT_MAX_BYTES} bytes to its standard output`
      return reject(new AdapterError('bad-answer', message, { effect: 'unknown' }))
    }
    resolve({ code, signal, timedOut, stdout: new Secret(stdout.bytes()), stderr: lastLines(stderr, request.input) })
  })
  child.stdout.on('data', (chunk: Buffer) => {
    stdout.add(chunk)
    if (stdout.overflowed) end()
  })
  child.stderr.on('data', (chunk: Buffer) => stderr.add(chunk))
  // A program that does not read its input ends early; that is its right, and EPIPE no failure.
  child.stdin.on('error', () => undefined)
  child.stdin.end(request.input === undefined ? undefined : Buffer.from(request.input.bytes()))
  return promise
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
    while (this.#keep === 'tail' && this.#size > 2 * this.#limit && this.#chunks.length > 1) this.#size -= this.#chunks.shift()?.length ?? 0
  }

  bytes(): Buffer {
    return Buffer.concat(this.#chunks)
  }
}

/** Scrubbed before it is cut, so that no cut leaves half a value standing. */
function lastLines(stderr: Capture, input: Secret | undefined): string {
  const text = scrub(stderr.bytes().toString('utf8'), input === undefined ? [] : [input])
  return text.trimEnd().split(/\r?\n/).slice(-STDERR_LINES).join('\n').slice(-4096)
}
