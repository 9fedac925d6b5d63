import { parseName } from '../../app/base/lookup.ts'
import type { ChecklistItem } from '../../app/runs/checklist.ts'
import type { Shown } from '../../app/secrets/show.ts'
import { humanSpan } from '../../core/duration.ts'
import { currentVersion } from '../../core/model.ts'
import type { Context } from '../context.ts'
import type { Register } from '../command.ts'
import { actionOf } from '../render/history.ts'
import { showData } from '../render/show.ts'
import { fateOf } from './versions.ts'

export const show: Register = (parent, run) => {
  parent
    .command('show')
    .helpGroup('Secrets:')
    .summary('everything about a secret but its value')
    .description(
      'Shows versions, when the old key dies, the schedule, targets, checks and the last runs ' +
        'of a secret; never its value.',
    )
    .argument('<path>', 'name of the secret, or its id')
    .option(
      '--checklist',
      'the five steps of the rotation checklist, from the evidence of the last rotation',
    )
    .action(
      run(async (ctx, path: string, options: { readonly checklist?: boolean }) => {
        const name = parseName(path)
        const { showSecret } = await import('../../app/secrets/show.ts')
        const shown = await showSecret(await ctx.deps({ readonly: true }), {
          name,
          checklist: options.checklist ?? false,
        })
        ctx.out.data({ secret: showData(shown) })
        if (ctx.globals.json) return
        if (shown.checklist === undefined) screen(ctx, shown)
        else printChecklist(ctx, shown.checklist)
      }),
    )
}

const marks = { yes: '[x]', no: '[ ]', 'not-needed': '[-]' } as const

function printChecklist(ctx: Context, items: readonly ChecklistItem[]): void {
  for (const { step, title, status, evidence } of items)
    ctx.out.line(`${marks[status]} ${step}  ${title.padEnd(36)} ${evidence}`)
}

/** One fact per line, what matters first. */
function screen(ctx: Context, { secret, standing, inPlace, fields, runs }: Shown): void {
  const line = (name: string, text: string): void => ctx.out.line(`${name.padEnd(15)}${text}`)
  const current = currentVersion(secret)
  const schedule = secret.schedule
  line('Secret', `${secret.path}   ${secret.type}, ${secret.tier}`)
  line('Status', standing)
  if (secret.deletedAt !== undefined) line('Deleted', ctx.times.when(secret.deletedAt))
  line(
    'Current',
    current === undefined
      ? 'no value yet'
      : `version ${current.n}   ${current.hint}   since ` +
          `${ctx.times.when(current.promotedAt ?? current.createdAt)}`,
  )
  if (fields.length > 0 && fields[0] !== 'value') line('Fields', fields.join(', '))
  for (const version of secret.versions.toReversed()) {
    if (
      version.n === current?.n ||
      (version.labels.length === 0 && version.retirement === undefined)
    )
      continue
    const { n, hint, state } = version
    line(
      version.labels.includes('pending') ? 'Pending' : 'Previous',
      `version ${n}   ${hint}   ${state}   ${fateOf(ctx, version)}`.trimEnd(),
    )
  }
  if (schedule === undefined) {
    line('Schedule', `none; rotate schedule set ${secret.path} --provider P --interval 30`)
  } else {
    line(
      'Next rotation',
      schedule.status === 'active' ? ctx.times.when(schedule.nextAt) : schedule.status,
    )
    line(
      'Interval',
      schedule.intervalDays === null
        ? `cron ${schedule.cron ?? ''} (UTC)`
        : `${schedule.intervalDays} days`,
    )
    line('Provider', schedule.provider.id)
    line(
      'Grace',
      inPlace
        ? 'none: the old value dies when the new one is made'
        : schedule.graceMs === 0
          ? 'none'
          : humanSpan(schedule.graceMs),
    )
    if (schedule.quarantineMs > 0 && !inPlace) line('Quarantine', humanSpan(schedule.quarantineMs))
    if (schedule.targets.length > 0)
      line('Targets', schedule.targets.map((target) => target.key).join(', '))
    if (schedule.checks.length > 0)
      line('Checks', schedule.checks.map((check) => check.key).join(', '))
    if (schedule.lastError !== undefined && schedule.failures > 0)
      line('Last error', schedule.lastError)
  }
  if (secret.openRun !== undefined)
    line('Open run', `${secret.openRun}   rotate resume ${secret.openRun}`)
  if (secret.tags.length > 0) line('Tags', secret.tags.join(', '))
  if (current?.expiresAt !== undefined) line('Expires', ctx.times.when(current.expiresAt))
  for (const [key, value] of Object.entries({ ...secret.metadata, ...current?.metadata }))
    line('Metadata', `${key}=${value}`)
  for (const run of runs)
    line(
      run === runs[0] ? 'Last runs' : '',
      `${ctx.times.at(run.startedAt)}   ${actionOf(run)}   ${run.id}`,
    )
}
