/** Makes the engine's ports from what a use case is given. */
import { usage } from '../../core/errors.ts'
import type { Schedule } from '../../core/model.ts'
import { nextDate } from '../../engine/policy.ts'
import type { EnginePorts, Progress } from '../../engine/ports.ts'
import { createAdapters } from './open.ts'
import type { Deps } from '../base/deps.ts'

/** Ports for driving runs. `progress` is called as steps begin and end. */
export async function enginePorts(
  deps: Deps,
  progress: (event: Progress) => void = () => undefined,
): Promise<EnginePorts> {
  const cronNext = await cronDates()
  return {
    vault: deps.vault,
    clock: deps.clock,
    random: deps.random,
    faults: deps.faults,
    locks: deps.locks,
    adapters: createAdapters(deps),
    actor: deps.actor,
    reason: deps.reason,
    signal: deps.signal,
    pid: deps.pid,
    command: deps.command,
    ensureBackup: async (newerThan) =>
      (await import('../vault/backup.ts')).ensureBackup(deps, newerThan),
    nextDate: (schedule: Schedule, from: number) => nextDate(schedule, from, cronNext),
    note: (line) => deps.note(line),
    progress,
  }
}

/**
 * Returns a function that gives the next time of a cron expression after another time, in
 * UTC. That function throws `usage` naming what is wrong with the expression.
 */
export async function cronDates(): Promise<(expression: string, after: number) => number> {
  const { Cron } = await import('croner')
  return (expression, after) => {
    let next: Date | null
    try {
      next = new Cron(expression, { timezone: 'UTC', mode: '5-part' }).nextRun(new Date(after))
    } catch (error) {
      throw usage(
        `--cron: ${error instanceof Error ? error.message : 'not a cron expression'}`,
        'five fields in UTC, for example "0 2 * * 0"',
      )
    }
    if (next === null) throw usage('--cron: this expression never comes true')
    return next.getTime()
  }
}
