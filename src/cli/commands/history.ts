import { causeOf } from '../../app/runs/run-view.ts'
import { Option } from 'commander'
import { parseName } from '../../app/base/lookup.ts'
import { usage } from '../../core/errors.ts'
import type { RunRecord, RunStatus } from '../../core/model.ts'
import { humanSpan } from '../../core/duration.ts'
import type { Context } from '../context.ts'
import { parseCount, parseSince } from '../options.ts'
import type { Register } from '../command.ts'
import { actionOf, historyItem, newVersionOf } from '../render/history.ts'
import { pickDefined } from '../../core/defined.ts'

interface Options {
  readonly since?: string
  readonly status?: 'success' | 'failed' | 'rolled_back' | 'unsafe' | 'pending'
  readonly limit?: string
}

export const history: Register = (parent, run) => {
  parent
    .command('history')
    .helpGroup('Looking back:')
    .summary('rotations, newest first')
    .description(
      'Rotations, newest first: all of them, those of one secret, or every step of one ' +
        'run.\n\nExamples:\n  rotate history production/aws/DEPLOY_KEY\n  rotate history ' +
        'run_01KABX…',
    )
    .argument('[path-or-run]', 'a secret, or the id of a run')
    .option('--since <date>', 'from this date, or this long ago: 2026-11-01, 7d')
    .addOption(
      new Option('--status <status>', 'only those that ended so').choices([
        'success',
        'failed',
        'rolled_back',
        'unsafe',
        'pending',
      ]),
    )
    .option('--limit <n>', 'at most this many')
    .action(
      run(async (ctx, of: string | undefined, options: Options) => {
        const name =
          of === undefined || /^(run|hist)_[0-9A-Z]+$/.test(of)
            ? of?.replace(/^hist_/, 'run_')
            : parseName(of)
        const limit =
          options.limit === undefined
            ? Number.POSITIVE_INFINITY
            : parseCount(options.limit, '--limit', 1, 1_000_000)
        const status: RunStatus | undefined = options.status === 'pending' ? 'open' : options.status
        const since =
          options.since === undefined
            ? undefined
            : parseSince(options.since, '--since', ctx.clock.now())
        if (name?.startsWith('run_') === true && (status !== undefined || since !== undefined))
          throw usage('a run id needs no filter')
        const { history: read } = await import('../../app/runs/history.ts')
        const runs = await read(await ctx.deps({ readonly: true }), {
          limit,
          ...pickDefined({ of: name, status, since }),
        })
        ctx.out.data({ history: runs.map(historyItem) })
        if (runs.length === 0) ctx.out.note('no rotations')
        else if (name?.startsWith('run_') === true && runs[0] !== undefined)
          await steps(ctx, runs[0])
        else await rows(ctx, runs)
      }),
    )
}

async function rows(ctx: Context, runs: readonly RunRecord[]): Promise<void> {
  await ctx.out.table(
    ['WHEN', 'RUN', 'SECRET', 'WHAT', 'VERSION', 'BY', 'TOOK', 'CAUSE'],
    runs.map((run) => [
      ctx.times.at(run.startedAt),
      run.id,
      run.path,
      actionOf(run),
      `${run.plan.oldVersion ?? '-'} → ${newVersionOf(run) ?? '-'}`,
      run.trigger === 'manual' ? run.actor : run.trigger,
      run.closedAt === undefined ? '-' : humanSpan(run.closedAt - run.startedAt),
      causeOf(run) ?? '',
    ]),
  )
}

/** Every step of one run, in order. */
async function steps(ctx: Context, run: RunRecord): Promise<void> {
  ctx.out.line(`run       ${run.id}`)
  ctx.out.line(`secret    ${run.path}`)
  ctx.out.line(
    `what      ${actionOf(run)}, version ${run.plan.oldVersion ?? '-'} → ` +
      `${newVersionOf(run) ?? '-'}`,
  )
  ctx.out.line(
    `by        ${run.actor} (${run.trigger})${run.reason === undefined ? '' : `: ${run.reason}`}`,
  )
  ctx.out.line(`started   ${ctx.times.when(run.startedAt)}`)
  ctx.out.line(`ended     ${ctx.times.when(run.closedAt)}`)
  ctx.out.line()
  await ctx.out.table(
    ['AT', 'EVENT', 'STEP', 'TOOK', 'DETAIL'],
    run.events.map((event) => [
      `+${((event.at - run.startedAt) / 1000).toFixed(1)} s`,
      event.type,
      'step' in event ? event.step : '',
      'ms' in event ? `${Math.round(event.ms)} ms` : '',
      detailOf(event),
    ]),
  )
}

function detailOf(event: RunRecord['events'][number]): string {
  switch (event.type) {
    case 'done':
      return [
        event.detail,
        ...(event.checks ?? []).map((check) => `${check.name}: ${check.detail}`),
      ]
        .filter((part) => part !== undefined)
        .join('; ')
    case 'failed':
      return event.failure.message
    case 'settled':
      return `${event.outcome}: ${event.detail}`
    case 'turned':
      return `${event.direction}: ${event.reason}`
    case 'parked':
      return event.reason
    case 'closed':
      return event.detail === undefined ? event.status : `${event.status}: ${event.detail}`
    case 'began':
    case 'intended':
      return ''
    default:
      return event satisfies never
  }
}
