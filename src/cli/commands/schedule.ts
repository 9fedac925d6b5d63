/** `schedule …`: when and how a secret is rotated. */
import type { ScheduleSetInput } from '../../app/schedules/schedule-set.ts'
import { parseName } from '../../app/base/lookup.ts'
import { scheduleStandings, type ScheduleStanding } from '../../app/base/standing.ts'
import {
  DAY,
  humanSpan,
  iso,
  parseDuration,
  parseInstant,
  parseInterval,
} from '../../core/duration.ts'
import { usage } from '../../core/errors.ts'
import { parseJsonObject } from '../../core/json.ts'
import { partsOf, selector, visible } from '../../core/names.ts'
import type { Context } from '../context.ts'
import { collect } from '../options.ts'
import type { Register } from '../command.ts'
import { pickDefined } from '../../core/defined.ts'

interface SetOptions {
  readonly provider?: string
  readonly interval?: string
  readonly every?: string
  readonly cron?: string
  readonly config?: string
  readonly grace?: string
  readonly quarantine?: string
  readonly target: readonly string[]
  readonly check: readonly string[]
  readonly notify?: readonly string[]
  readonly notifyBefore?: string
  readonly first?: string
  readonly strict?: true
}

export const schedule: Register = (parent, run) => {
  const group = parent
    .command('schedule')
    .helpGroup('Schedules:')
    .summary('when and how secrets are rotated')
    .description('When and how secrets are rotated.')

  group
    .command('set')
    .alias('enable')
    .summary('create or change a schedule')
    .description(
      'Creates a schedule, or changes it: what is not given stays as it is, sealed ' +
        'configuration included. Everything is checked now.\n\nExamples:\n' +
        '  rotate schedule set production/app/SESSION_KEY --provider generated --interval 30\n' +
        '  rotate schedule set production/aws/DEPLOY_KEY --provider aws --interval 90 ' +
        '--config @aws.json \\\n' +
        '      --target \'{"type":"env-file","path":"/srv/app/.env"}\' --check ' +
        '\'{"type":"http","url":"https://app.example.com/health"}\'',
    )
    .argument('<path>', 'which secret; it need not exist yet')
    .option('--provider <id>', 'who issues the new value (rotate provider list)')
    .option('--interval <days>', 'whole days from 1 to 365, or weekly, monthly, quarterly')
    .option('--every <duration>', 'the same as a duration: 30d, 4w, P30D')
    .option('--cron <expression>', 'five fields, UTC, instead of an interval')
    .option('--config <json>', 'configuration of the provider: JSON, @FILE, or - for stdin')
    .option(
      '--grace <duration>',
      'how long the old value stays alive after a rotation (a bare number is days)',
    )
    .option('--quarantine <duration>', 'how long it stays switched off before it is deleted')
    .option(
      '--target <json>',
      'who must get the new value: JSON or @FILE; may be repeated',
      collect,
      [],
    )
    .option(
      '--check <json>',
      'what proves that it works: JSON or @FILE; may be repeated',
      collect,
      [],
    )
    .option(
      '--notify <names>',
      'notifiers that are told (rotate notify list), with commas or repeated; none for nobody',
      collect,
    )
    .option(
      '--notify-before <durations>',
      'warn so long before the date: 7d,1d,0d (the default is 7d,1d)',
    )
    .option('--first <when>', 'the first rotation: now, or a date')
    .option('--strict', 'refuse what is above the recommended age instead of warning')
    .action(
      run(async (ctx, path: string, options: SetOptions) => {
        const input = await readSet(ctx, parseName(path), options)
        const { scheduleSet } = await import('../../app/schedules/schedule-set.ts')
        const { secret, schedule: set, warnings } = await scheduleSet(await ctx.deps(), input)
        for (const warning of warnings) ctx.out.warn(warning)
        ctx.out.data({
          id: set.id,
          secretKey: partsOf(secret.path).secretKey,
          path: secret.path,
          intervalDays: set.intervalDays,
          provider: set.provider.id,
          status: set.status,
          nextRotationAt: iso(set.nextAt),
          createdAt: iso(set.createdAt),
        })
        ctx.out.line(
          `${secret.path}  ${rhythm(set.intervalDays, set.cron)} by ${set.provider.id}, next ` +
            `${ctx.times.when(set.nextAt)}`,
        )
        for (const { key, names } of set.targets)
          ctx.out.note(`${key} gets ${Object.values(names).join(', ')}`)
        const { isInPlace } = await import('../../app/adapters/in-place.ts')
        const quarantine = set.quarantineMs > 0 ? `, quarantine ${humanSpan(set.quarantineMs)}` : ''
        const grace = (await isInPlace(set))
          ? 'no grace: the old value dies when the new one is made'
          : `grace ${humanSpan(set.graceMs)}${quarantine}`
        ctx.out.note(`${grace} · see what will happen: rotate plan ${secret.path}`)
      }),
    )

  group
    .command('list')
    .alias('ls')
    .summary('all schedules')
    .description(
      'All schedules, or those of one project or prefix.\n\nExamples:\n  rotate schedule ' +
        'list\n  rotate schedule list my-project --status failed',
    )
    .argument('[project]', 'a project, a prefix or a glob')
    .option('--status <status>', `one of ${scheduleStandings.join(', ')}`)
    .action(
      run(async (ctx, project: string | undefined, options: { status?: string }) => {
        const status = options.status as ScheduleStanding | undefined
        if (status !== undefined && !scheduleStandings.includes(status))
          throw usage(
            `--status: "${visible(status, 30)}" is not a status`,
            scheduleStandings.join(', '),
          )
        const { listSchedules } = await import('../../app/schedules/schedules.ts')
        const rows = await listSchedules(await ctx.deps({ readonly: true }), {
          ...(project === undefined ? {} : { matches: selector(project) }),
          ...pickDefined({ status }),
        })
        ctx.out.data({ rotations: rows })
        if (rows.length === 0) ctx.out.note('no schedules')
        else {
          await ctx.out.table(
            ['SECRET', 'PROVIDER', 'EVERY', 'STATUS', 'LAST ROTATED', 'NEXT'],
            rows.map((row) => [
              row.path,
              row.provider,
              row.intervalDays === null ? 'cron' : `${row.intervalDays} d`,
              row.status,
              ctx.times.when(row.lastRotatedAt === null ? null : Date.parse(row.lastRotatedAt)),
              ctx.times.when(row.nextRotationAt === null ? null : Date.parse(row.nextRotationAt)),
            ]),
          )
        }
      }),
    )

  group
    .command('show')
    .summary('one schedule')
    .description(
      'One schedule with its targets and checks; secrets are masked.\n\nExample:\n  rotate ' +
        'schedule show production/aws/DEPLOY_KEY',
    )
    .argument('<path>', 'which secret')
    .action(
      run(async (ctx, path: string) => {
        const { showSchedule } = await import('../../app/schedules/schedules.ts')
        const { loadProvider } = await import('../../app/adapters/open.ts')
        const detail = await showSchedule(await ctx.deps({ readonly: true }), parseName(path))
        ctx.out.data({ rotation: detail })
        for (const line of block(ctx, detail, (await loadProvider(detail.provider)).title))
          ctx.out.line(line)
      }),
    )

  group
    .command('pause')
    .summary('stop rotating for a while')
    .description(
      'Stops automatic rotation; the time left to the next one is kept. Old keys in grace ' +
        'still end.\n\nExample:\n  rotate schedule pause production/aws/DEPLOY_KEY --until DATE',
    )
    .argument('<path>', 'which secret')
    .option('--until <date>', 'run-due resumes it then')
    .action(
      run(async (ctx, path: string, options: { until?: string }) => {
        const use = await import('../../app/schedules/schedules.ts')
        const until =
          options.until === undefined ? undefined : parseInstant(options.until, '--until')
        if (until !== undefined && until <= ctx.clock.now()) throw usage('--until is in the past')
        const result = await use.pause(await ctx.deps(), {
          path: parseName(path),
          ...pickDefined({ until }),
        })
        ctx.out.data({
          status: result.status,
          pausedAt: result.pausedAt,
          ...(result.until === null ? {} : { until: result.until }),
        })
        const end =
          result.until === null ? '' : ` until ${ctx.times.when(Date.parse(result.until))}`
        ctx.out.line(`${path} paused${end}`)
      }),
    )

  group
    .command('resume')
    .summary('rotate again after a pause')
    .description(
      'Resumes a paused schedule with the time that was left; what was overdue is ' +
        'due.\n\nExample:\n  rotate schedule resume production/aws/DEPLOY_KEY',
    )
    .argument('<path>', 'which secret')
    .action(
      run(async (ctx, path: string) => {
        const use = await import('../../app/schedules/schedules.ts')
        const result = await use.unpause(await ctx.deps(), parseName(path))
        ctx.out.data(result)
        ctx.out.line(`${path} active, next ${ctx.times.when(Date.parse(result.nextRotationAt))}`)
      }),
    )

  group
    .command('disable')
    .summary('no automatic rotation any more')
    .description(
      'Ends automatic rotation. The configuration is kept; schedule set enables it again. Old ' +
        'keys in grace still end.\n\nExample:\n  rotate schedule disable ' +
        'production/aws/DEPLOY_KEY',
    )
    .argument('<path>', 'which secret')
    .action(
      run(async (ctx, path: string) => {
        const use = await import('../../app/schedules/schedules.ts')
        const result = await use.disable(await ctx.deps(), parseName(path))
        ctx.out.data(result)
        ctx.out.line(`${path} disabled`)
      }),
    )

  group
    .command('skip')
    .summary('postpone the next rotation')
    .description(
      'Postpones the next rotation.\n\nExample:\n  rotate schedule skip ' +
        'production/aws/DEPLOY_KEY --for 30d',
    )
    .argument('<path>', 'which secret')
    .option('--for <duration>', 'by how long (a bare number is days)', '30d')
    .action(
      run(async (ctx, path: string, options: { for: string }) => {
        const use = await import('../../app/schedules/schedules.ts')
        const forMs = parseDuration(options.for, '--for', 'days')
        if (forMs <= 0 || forMs > 365 * DAY)
          throw usage('--for must be more than nothing and at most 365 days')
        const result = await use.skip(await ctx.deps(), { path: parseName(path), forMs })
        ctx.out.data(result)
        ctx.out.line(`${path} postponed to ${ctx.times.when(Date.parse(result.nextRotationAt))}`)
      }),
    )
}

function rhythm(days: number | null, cron: string | null | undefined): string {
  return days === null ? `cron "${cron ?? ''}"` : `every ${days} day${days === 1 ? '' : 's'}`
}

/** A schedule as lines for people. */
function block(
  ctx: Context,
  detail: Awaited<ReturnType<typeof import('../../app/schedules/schedules.ts').showSchedule>>,
  title: string,
): readonly string[] {
  const now = ctx.clock.now()
  const day = (text: string): string => text.slice(0, 10)
  const days = (text: string): number => Math.round(Math.abs(Date.parse(text) - now) / DAY)
  const daysTo = (text: string): string =>
    Date.parse(text) < now ? `${days(text)} days overdue` : `${days(text)} days`
  const last = detail.lastRotatedAt
  const next = detail.nextRotationAt
  const rhythm =
    detail.intervalDays === null ? `cron ${detail.cron ?? ''}` : `${detail.intervalDays} days`
  const quarantine =
    detail.quarantine > 0 ? `, quarantine ${humanSpan(detail.quarantine * 1000)}` : ''
  const targets = detail.targets.map(({ name, names, previous = {} }) => {
    const all = [...Object.values(names), ...Object.values(previous)]
    return `${name} (${all.join(', ')})`
  })
  const before = detail.notifyBefore.map((s) => humanSpan(s * 1000)).join(', ')
  const retry =
    detail.retryAt === null ? '' : ` (tried again ${ctx.times.when(Date.parse(detail.retryAt))})`
  return [
    `Secret: ${detail.secretKey}`,
    `Status: ${detail.status[0]?.toUpperCase() ?? ''}${detail.status.slice(1)}`,
    `Last rotated: ${last === null ? 'never' : `${day(last)} (${days(last)} days ago)`}`,
    `Next rotation: ${next === null ? 'none' : `${day(next)} (${daysTo(next)})`}`,
    `Provider: ${title}`,
    `Interval: ${rhythm}`,
    detail.inPlace
      ? 'Grace: none, the old value dies when the new one is made'
      : `Grace: ${humanSpan(detail.grace * 1000)}${quarantine}`,
    `Targets: ${targets.join('; ') || 'none'}`,
    `Checks: ${detail.checks.map((check) => check.name).join('; ') || 'none'}`,
    ...(detail.notify.length === 0
      ? []
      : [
          `Notices: ${detail.notify.join(', ')}${before === '' ? '' : `; warned ${before} before`}`,
        ]),
    `Path: ${detail.path}   Id: ${detail.id}`,
    ...(detail.lastError === null ? [] : [`Last failure: ${detail.lastError}${retry}`]),
  ]
}

async function readSet(ctx: Context, path: string, options: SetOptions): Promise<ScheduleSetInput> {
  if (options.interval !== undefined && options.every !== undefined)
    throw usage('--interval and --every say the same thing; give one')
  const interval = options.interval ?? options.every
  const { first } = options
  return {
    path,
    strict: options.strict === true,
    ...pickDefined({ provider: options.provider }),
    ...(interval === undefined
      ? {}
      : {
          intervalDays: parseInterval(
            interval,
            options.every === undefined ? '--interval' : '--every',
          ),
        }),
    ...pickDefined({ cron: options.cron }),
    ...(options.config === undefined
      ? {}
      : { config: await jsonOption(ctx, options.config, '--config', true) }),
    ...(options.grace === undefined
      ? {}
      : { graceMs: parseDuration(options.grace, '--grace', 'days') }),
    ...(options.quarantine === undefined
      ? {}
      : { quarantineMs: parseDuration(options.quarantine, '--quarantine', 'days') }),
    ...(options.target.length === 0 ? {} : { targets: await all(ctx, options.target, '--target') }),
    ...(options.check.length === 0 ? {} : { checks: await all(ctx, options.check, '--check') }),
    ...(options.notify === undefined ? {} : { notify: namesIn(options.notify) }),
    ...(options.notifyBefore === undefined
      ? {}
      : { notifyBefore: warningsIn(options.notifyBefore) }),
    ...(first === undefined
      ? {}
      : { first: first === 'now' ? ('now' as const) : parseInstant(first, '--first') }),
  }
}

function namesIn(texts: readonly string[]): readonly string[] {
  const names = texts.flatMap((text) => text.split(',')).map((name) => name.trim())
  if (names.includes('')) throw usage('--notify: a name is empty')
  if (names.length === 1 && names[0] === 'none') return []
  return [...new Set(names)]
}

/**
 * Durations before the date. `0d` is accepted and warns of nothing, because the notice of
 * the start is sent on that day anyway.
 */
function warningsIn(text: string): readonly number[] {
  if (text.trim() === 'none') return []
  const all = text
    .split(',')
    .map((part) =>
      /^0+[a-z]?$/i.test(part.trim()) ? 0 : parseDuration(part.trim(), '--notify-before'),
    )
  for (const ms of all) if (ms > 365 * DAY) throw usage('--notify-before: at most 365d')
  return [...new Set(all)].toSorted((a, b) => b - a)
}

async function all(
  ctx: Context,
  texts: readonly string[],
  flag: string,
): Promise<readonly Record<string, unknown>[]> {
  const objects: Record<string, unknown>[] = []
  for (const text of texts) objects.push(await jsonOption(ctx, text, flag, false))
  return objects
}

/**
 * Reads JSON from the command line, a file or, where allowed, stdin. Its size is bounded,
 * and it is never quoted in an error.
 */
export async function jsonOption(
  ctx: Context,
  text: string,
  flag: string,
  stdin: boolean,
): Promise<Record<string, unknown>> {
  if (text === '-' && stdin) {
    const otherwise = `pipe it in, or name a file: ${flag} @FILE`
    const given = await ctx.input.stdin({
      what: 'the JSON on stdin',
      question: `JSON for ${flag}`,
      extent: 'text',
      otherwise,
    })
    return parseJsonObject(given.reveal(), flag)
  }
  if (text.startsWith('@'))
    return parseJsonObject((await ctx.input.file(text.slice(1), flag)).reveal(), flag)
  return parseJsonObject(text, flag)
}
