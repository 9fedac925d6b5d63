/**
 * Runs the built program as a user would: by its launcher, with an argument array, an
 * almost empty environment and a home of its own.
 */
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import type { z } from 'zod'
import { document, errorDocument } from '../contract/common.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
export const program = join(root, 'bin/rotate')

if (!existsSync(join(root, 'dist/main.js')))
  throw new Error('these tests run the built program: npm run build')

export interface Result {
  readonly args: readonly string[]
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stdoutBytes: Buffer
  readonly stderr: string
}

export interface RunOptions {
  readonly input?: string | Uint8Array
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
  /** A descriptor that becomes stdout instead of a pipe. */
  readonly stdout?: number
  /** Stops reading stdout after this many bytes and closes the pipe. */
  readonly readOnly?: number
  readonly stdin?: 'ignore' | 'never-ends'
}

/**
 * A home directory that is thrown away. `run` remembers all output, for `expectNoTrace`.
 */
export class Sandbox {
  readonly home = mkdtempSync(join(tmpdir(), 'rotate-cli-'))
  readonly results: Result[] = []

  get keyFile(): string {
    return join(this.home, 'vault.key')
  }

  get vault(): string {
    return join(this.home, '.local/share/rotate/vault.db')
  }

  path(...names: string[]): string {
    return join(this.home, ...names)
  }

  async init(): Promise<this> {
    const { code, stderr } = await this.run(['init'])
    if (code !== 0) throw new Error(`init failed: ${stderr}`)
    return this
  }

  /**
   * Runs `rotate`. The key file is named by the environment unless `env` says otherwise.
   */
  run(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    const env = {
      HOME: this.home,
      PATH: '/usr/bin:/bin',
      ROTATE_KEY_FILE: this.keyFile,
      ...options.env,
    }
    const wanted = Object.fromEntries(
      Object.entries(env).filter(([, value]) => value !== undefined),
    )
    const piped = options.input !== undefined || options.stdin === 'never-ends'
    const child = spawn(program, [...args], {
      env: wanted,
      cwd: options.cwd ?? this.home,
      stdio: [piped ? 'pipe' : 'ignore', options.stdout ?? 'pipe', 'pipe'],
    })
    const out: Buffer[] = []
    const err: Buffer[] = []
    let size = 0
    child.stdout?.on('data', (chunk: Buffer) => {
      out.push(chunk)
      size += chunk.length
      if (options.readOnly !== undefined && size >= options.readOnly) child.stdout?.destroy()
    })
    child.stderr?.on('data', (chunk: Buffer) => err.push(chunk))
    // The program may stop reading before it has everything.
    child.stdin?.on('error', () => undefined)
    if (options.stdin === 'never-ends') {
      const feed = (): void =>
        void (child.stdin?.write(Buffer.alloc(65_536, 'x')) === true
          ? setImmediate(feed)
          : child.stdin?.once('drain', feed))
      feed()
    } else child.stdin?.end(options.input)
    return new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code, signal) => {
        const stdoutBytes = Buffer.concat(out)
        const result = {
          args,
          code,
          signal,
          stdout: stdoutBytes.toString(),
          stdoutBytes,
          stderr: Buffer.concat(err).toString(),
        }
        this.results.push(result)
        resolve(result)
      })
    })
  }

  /**
   * Runs with `--json`, expects success, and returns `data` after holding it against its
   * schema.
   */
  async json<T extends z.ZodType>(
    schema: T,
    args: readonly string[],
    options: RunOptions = {},
  ): Promise<z.output<T>> {
    const result = await this.run([...args, '--json'], options)
    expect(result, result.stderr).toMatchObject({ code: 0 })
    const parsed = document(schema).parse(JSON.parse(result.stdout)) as {
      readonly data: z.output<T>
    }
    return parsed.data
  }

  /**
   * Runs, expects this exit code, and holds both forms of the error to the contract.
   * Returns the plain text one.
   */
  async fails(code: number, args: readonly string[], options: RunOptions = {}): Promise<Result> {
    const result = await this.run(args, options)
    expect({ args, code: result.code, stdout: result.stdout }, result.stderr).toEqual({
      args,
      code,
      stdout: '',
    })
    expect(result.stderr).toMatch(/^rotate: \S/m)
    expect(result.stderr).not.toMatch(/\n\s+at /)
    return result
  }

  dispose(): void {
    rmSync(this.home, { recursive: true, force: true })
  }
}

/** The error document of a run with `--json`. */
export function errorOf(result: Result) {
  const { error } = errorDocument.parse(JSON.parse(result.stderr))
  expect(error.exit).toBe(result.code)
  return error
}

/** Makes a value that can be found again in any spelling. */
export function canary(name: string): string {
  const random = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) =>
    byte.toString(36).padStart(2, '0'),
  ).join('')
  return `canary+${name}/${random}="'&`
}

function spellings(value: string): readonly string[] {
  const bytes = Buffer.from(value)
  // In base64 the letters depend on where the value begins; the inner part of each of the
  // three alignments is searched for.
  const base64 = [0, 1, 2].map((shift) =>
    Buffer.concat([Buffer.alloc(shift), bytes])
      .toString('base64')
      .slice(shift === 0 ? 0 : 4, -4),
  )
  return [
    value,
    value.slice(0, -4),
    JSON.stringify(value).slice(1, -1),
    bytes.toString('hex'),
    bytes.toString('hex').toUpperCase(),
    encodeURIComponent(value),
    ...base64,
    ...base64.map((text) => text.replaceAll('+', '-').replaceAll('/', '_')),
    bytes.toString('utf16le'),
  ]
}

function filesBelow(directory: string): readonly string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => join(directory, name))
    .filter((file) => statSync(file, { throwIfNoEntry: false })?.isFile() === true)
}

export interface TraceOptions {
  /** Runs whose stdout may hold it. */
  readonly shownBy?: readonly Result[]
  /** Files that may hold it. */
  readonly heldBy?: readonly string[]
}

/**
 * Fails if the value stands anywhere it must not: stdout and stderr of all runs, every
 * byte of every file of the sandbox.
 */
export function expectNoTrace(sandbox: Sandbox, value: string, options: TraceOptions = {}): void {
  const wanted = spellings(value)
  const traces: string[] = []
  for (const result of sandbox.results) {
    const shown = options.shownBy?.includes(result) === true
    for (const [stream, text] of [
      ['stdout', shown ? '' : result.stdout],
      ['stderr', result.stderr],
    ] as const)
      if (wanted.some((spelling) => text.includes(spelling)))
        traces.push(`${stream} of rotate ${result.args[0] ?? ''}`)
  }
  for (const file of filesBelow(sandbox.home)) {
    if (options.heldBy?.includes(file) === true) continue
    const bytes = readFileSync(file)
    if (wanted.some((spelling) => bytes.includes(spelling))) traces.push(file)
  }
  expect(traces).toEqual([])
}
