/**
 * Compares the run times of whole processes. Every command runs once per round, in a new
 * order each time, so that a busy machine slows all of them alike.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

export interface Command {
  readonly name: string
  readonly argv: readonly [string, ...string[]]
  /** The environment, which is empty by default, as under `env -i`. */
  readonly env?: Readonly<Record<string, string>>
}

/**
 * Waits until no other process wants to run, at most `patience` milliseconds; it does not
 * wait where the kernel does not tell.
 */
function calm(patience: number): void {
  const end = performance.now() + patience
  for (;;) {
    let running = 1
    try {
      running = Number(/^procs_running (\d+)$/m.exec(readFileSync('/proc/stat', 'utf8'))?.[1] ?? 1)
    } catch {
      return
    }
    if (running <= 1 || performance.now() > end) return
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 4)
  }
}

function shuffled<T>(items: readonly T[]): T[] {
  const out = [...items]
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1))
    const one = out[i] as T
    out[i] = out[j] as T
    out[j] = one
  }
  return out
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 === 1
    ? (sorted[half] ?? Number.NaN)
    : ((sorted[half - 1] ?? Number.NaN) + (sorted[half] ?? Number.NaN)) / 2
}

/**
 * Runs a process and returns its milliseconds from start to end. Any exit code but 0 ends
 * the benchmark.
 */
function time({ name, argv: [program, ...args], env = {} }: Command): number {
  const start = performance.now()
  const { status, error } = spawnSync(program, args, { env, stdio: 'ignore' })
  const ms = performance.now() - start
  if (status !== 0) throw new Error(`${name}: exit ${status ?? error?.message}`)
  return ms
}

export interface Times {
  /**
   * The median milliseconds. They vary with the machine, so no target is compared with
   * them.
   */
  ms(name: string): number
  /** The median of the ratios of all rounds. */
  ratio(name: string, to: string): number
}

/** Runs all commands `rounds` times, after one round that only warms the caches. */
export function race(commands: readonly Command[], rounds: number, patience = 300): Times {
  const taken = new Map<string, number[]>(commands.map(({ name }) => [name, []]))
  for (const command of commands) time(command)
  for (let round = 0; round < rounds; round++) {
    for (const command of shuffled(commands)) {
      calm(patience)
      taken.get(command.name)?.push(time(command))
    }
  }
  const of = (name: string): readonly number[] => {
    const values = taken.get(name)
    if (values === undefined) throw new Error(`${name} did not run`)
    return values
  }
  return {
    ms: (name) => median(of(name)),
    ratio: (name, to) => median(of(name).map((ms, round) => ms / (of(to)[round] ?? Number.NaN))),
  }
}
