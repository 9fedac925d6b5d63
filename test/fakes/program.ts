/**
 * Stands in for a program: a script that runs as a process of its own, started by a
 * launcher in a new directory, with its state in a file beside it.
 */
import {
  chmodSync,
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  watch,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

interface ProgramCall {
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly stdin: string
}

export interface ProgramFault {
  /**
   * A regular expression for the arguments, joined by blanks. Used up by the first call
   * that matches.
   */
  readonly call: string
  readonly stderr?: string
  /** The program does its work before it fails. */
  readonly after?: true
  /** The program ends with 0 and does nothing. */
  readonly hollow?: true
  /** How many calls that match pass first. */
  readonly skip?: number
}

/**
 * Stops the next call that matches before, or after, its work until somebody has acted.
 */
export interface ProgramGate {
  /** A regular expression for the arguments, joined by blanks. */
  readonly call: string
  readonly when: 'before' | 'after'
}

export interface ProgramState {
  readonly calls: ProgramCall[]
  readonly faults: ProgramFault[]
  readonly gates: ProgramGate[]
}

const sleep = (): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2)

/**
 * Reads and writes the state alone, among the processes that play one program and the
 * test.
 */
function alone<T>(file: string, body: () => T): T {
  const lock = `${file}.lock`
  for (;;) {
    try {
      closeSync(openSync(lock, 'wx'))
      break
    } catch {
      sleep()
    }
  }
  try {
    return body()
  } finally {
    rmSync(lock)
  }
}

export interface Invocation {
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string>>
  /** What came through a real pipe; `undefined` where stdin is something else. */
  readonly piped: string | undefined
  flag(name: string): string | undefined
}

export interface Reply {
  readonly code: number
  readonly stdout?: string
  readonly stderr?: string
}

export class FakeProgram<S extends object> {
  readonly dir = mkdtempSync(join(tmpdir(), 'rotate-fake-'))
  readonly path: string

  constructor(name: string, script: string, state: S) {
    this.path = join(this.dir, name)
    writeFileSync(
      this.path,
      `#!/bin/sh\nexec '${process.execPath}' '${script}' '${this.#file}' "$@"\n`,
    )
    chmodSync(this.path, 0o755)
    writeFileSync(this.#file, JSON.stringify({ ...state, calls: [], faults: [], gates: [] }))
  }

  get #file(): string {
    return join(this.dir, 'state.json')
  }

  get state(): S & ProgramState {
    return JSON.parse(readFileSync(this.#file, 'utf8')) as S & ProgramState
  }

  change(how: (state: S & ProgramState) => void): void {
    alone(this.#file, () => {
      const { state } = this
      how(state)
      writeFileSync(this.#file, JSON.stringify(state))
    })
  }

  /** Lets somebody act while the next call that matches stands still. */
  meanwhile(gate: ProgramGate, act: () => void): void {
    this.change(({ gates }) => void gates.push(gate))
    const waiting = `${this.#file}.${gate.when}`
    const watcher = watch(this.dir, () => {
      if (!existsSync(waiting)) return
      watcher.close()
      act()
      rmSync(waiting)
    })
    // A gate that nobody reached must not keep the test alive.
    watcher.unref()
  }

  fail(fault: ProgramFault): void {
    this.change(({ faults }) => void faults.push(fault))
  }

  /** The arguments of each call, joined by blanks. */
  get argvs(): readonly string[] {
    return this.state.calls.map(({ argv }) => argv.join(' '))
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true })
  }
}

/**
 * What the script itself calls: reads the state, lets `answer` work on it, and writes it
 * back.
 */
export function play<S extends object>(
  answer: (call: Invocation, state: S & ProgramState) => Reply,
): void {
  const [, , file = '', ...argv] = process.argv
  const env = Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, value]],
    ),
  )
  const isPipe = fstatSync(0).isFIFO()
  const text = isPipe || fstatSync(0).isSocket() ? readFileSync(0, 'utf8') : ''
  const read = (): S & ProgramState => JSON.parse(readFileSync(file, 'utf8')) as S & ProgramState
  const gate = (when: ProgramGate['when']): void => {
    const stops = alone(file, () => {
      const state = read()
      const at = state.gates.findIndex(
        (one) => one.when === when && new RegExp(one.call).test(argv.join(' ')),
      )
      if (at >= 0) state.gates.splice(at, 1)
      if (at >= 0) writeFileSync(file, JSON.stringify(state))
      return at >= 0
    })
    if (stops) writeFileSync(`${file}.${when}`, '')
    while (stops && existsSync(`${file}.${when}`)) sleep()
  }
  const perform = (): Reply => {
    const state = read()
    const at = state.faults.findIndex(({ call }) => new RegExp(call).test(argv.join(' ')))
    const { skip = 0 } = state.faults[at] ?? {}
    const [found] = at < 0 ? [] : state.faults.splice(at, 1)
    if (found !== undefined && skip > 0) state.faults.push({ ...found, skip: skip - 1 })
    const fault = skip > 0 ? undefined : found
    state.calls.push({ argv, env, stdin: text })
    const piped = isPipe ? text : undefined
    const flag = (name: string): string | undefined => {
      const i = argv.indexOf(name)
      return i < 0 ? undefined : argv[i + 1]
    }
    const works = fault === undefined || fault.after === true
    const reply: Reply = works
      ? answer({ argv, env, piped, flag }, state)
      : { code: fault.hollow === true ? 0 : 1, stderr: fault.stderr ?? '' }
    writeFileSync(file, JSON.stringify(state))
    return fault?.after === true
      ? { code: 1, ...(fault.stderr === undefined ? {} : { stderr: fault.stderr }) }
      : reply
  }
  gate('before')
  const { code, stdout = '', stderr = '' } = alone(file, perform)
  gate('after')
  process.stdout.write(stdout)
  process.stderr.write(stderr)
  process.exitCode = code
}
