/** `run-due`: what cron calls. */
import { parseDuration } from '../../core/duration.ts'
import { usage } from '../../core/errors.ts'
import { selector } from '../../core/names.ts'
import type { Context } from '../context.ts'
import type { Register } from '../command.ts'

interface Options {
  readonly limit?: string
  readonly parallel?: string
  readonly jitter?: string
  readonly maxRuntime?: string
  readonly ping?: string
  readonly metricsFile?: string
  readonly failIfLocked?: true
  readonly events?: true
  readonly acceptClock?: true
}

export const runDue: Register = (parent, run) => {
  parent
    .command('run-due')
    .helpGroup('Rotation:')
    .summary('do what is due; for cron')
    .description(
      'Finishes interrupted runs, checks what is in grace, ends old keys whose time has come, ' +
        'rotates what is due. With nothing done it prints nothing; run it as often as you ' +
        'like.\n\nExample crontab line:\n  */15 * * * *  rotate run-due --key-file ' +
        '/etc/rotate/key',
    )
    .argument('[sel]', 'only these secrets: a path, a prefix or a glob')
    .option('--limit <n>', 'at most so many new rotations')
    .option('--parallel <n>', 'so many secrets at a time', '1')
    .option('--jitter <duration>', 'wait a random time up to this before the first')
    .option('--max-runtime <duration>', 'begin no new rotation after this long')
    .option('--ping <url>', 'call this URL when all went well, URL/fail when not')
    .option('--metrics-file <file>', 'write figures for a Prometheus text-file collector')
    .option('--fail-if-locked', 'exit 11 instead of 0 when another run-due is at work')
    .option(
      '--accept-clock',
      'the clock is right although it is behind the highest time seen (needs --reason)',
    )
    .option('--events', 'steps as NDJSON on stdout')
    .action(
      run(
        async (ctx, sel: string | undefined, options: Options) => {
          if (options.acceptClock === true && ctx.globals.reason === undefined)
            throw usage('--accept-clock needs a reason', 'add --reason "why"')
          const use = await import('../../app/rotation/run-due.ts')
          const input = {
            parallel: whole(options.parallel ?? '1', '--parallel', 64),
            jitterMs: options.jitter === undefined ? 0 : parseDuration(options.jitter, '--jitter'),
            failIfLocked: options.failIfLocked === true,
            upkeep: !ctx.globals.dryRun,
            acceptClock: options.acceptClock === true,
            ...(sel === undefined ? {} : { matches: selector(sel) }),
            ...(options.limit === undefined
              ? {}
              : { limit: whole(options.limit, '--limit', 1_000_000) }),
            ...(options.maxRuntime === undefined
              ? {}
              : { maxRuntimeMs: parseDuration(options.maxRuntime, '--max-runtime') }),
          }
          const deps = await ctx.deps()
          const { Events } = await import('../render/run.ts')
          const events = options.events === true ? new Events(ctx) : undefined
          const outcome = await use.runDue(
            deps,
            input,
            (event) => {
              if (events !== undefined) events.step(event)
              else if (ctx.out.verbose > 0 && event.status !== 'started')
                ctx.out.note(`${event.path}: ${event.step} ${event.status}`)
            },
            (lines) => {
              if (events === undefined) for (const line of lines) ctx.out.line(line)
            },
          )
          if (events !== undefined)
            events.emit('summary', { data: outcome.report }, outcome.report.runId)
          else ctx.out.data(outcome.report)
          if (options.metricsFile !== undefined) await metrics(ctx, options.metricsFile, outcome)
          if (options.ping !== undefined)
            await ping(ctx, options.ping, outcome.failure === undefined)
          if (outcome.failure !== undefined) throw outcome.failure
        },
        { graceful: true },
      ),
    )
}

function whole(text: string, flag: string, max: number): number {
  const value = Number(text)
  if (!/^\d{1,7}$/.test(text) || value < 1 || value > max)
    throw usage(`${flag} must be a whole number from 1 to ${max}`)
  return value
}

/**
 * Calls a URL that raises an alarm when it is not called for too long. That it can't be
 * reached is a warning and no failure.
 */
async function ping(ctx: Context, url: string, ok: boolean): Promise<void> {
  try {
    const answer = await ctx.host.http.send({
      method: 'GET',
      url: ok ? url : `${url.replace(/\/$/, '')}/fail`,
      effect: 'idempotent',
      timeoutMs: 10_000,
    })
    if (answer.status >= 400) ctx.out.warn(`--ping was answered with ${answer.status}`)
  } catch (thrown) {
    ctx.out.warn(`--ping failed: ${thrown instanceof Error ? thrown.message : 'unknown error'}`)
  }
}

/** Replaces the file in one step, so that a collector never reads half of it. */
async function metrics(
  ctx: Context,
  file: string,
  outcome: Awaited<ReturnType<typeof import('../../app/rotation/run-due.ts').runDue>>,
): Promise<void> {
  const { report, failure } = outcome
  const text = [
    ['rotate_run_due_timestamp_seconds', Math.floor(Date.parse(report.finishedAt) / 1000)],
    ['rotate_run_due_exit_code', failure?.exit ?? 0],
    ['rotate_run_due_rotated', report.rotated.length],
    ['rotate_run_due_failed', report.failed.length],
    ['rotate_run_due_revoked', report.revoked.length],
    ['rotate_run_due_resumed', report.resumed.length],
    [
      'rotate_next_due_timestamp_seconds',
      report.nextDueAt === null ? 0 : Math.floor(Date.parse(report.nextDueAt) / 1000),
    ],
  ]
    .map(([name, value]) => `# TYPE ${name} gauge\n${name} ${value}\n`)
    .join('')
  const { writeFileSync, renameSync } = await import('node:fs')
  try {
    writeFileSync(`${file}.${ctx.host.pid}.tmp`, text, { mode: 0o644, flag: 'wx' })
    renameSync(`${file}.${ctx.host.pid}.tmp`, file)
  } catch {
    ctx.out.warn('--metrics-file could not be written')
  }
}
