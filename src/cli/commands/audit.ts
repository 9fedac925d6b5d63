/** `audit list|verify|export`: what happened, and proof that nothing was taken out. */
import { resolve } from 'node:path'
import { type Command, Option } from 'commander'
import type { Anchor } from '../../app/audit.ts'
import { usage } from '../../core/errors.ts'
import { parseJsonObject } from '../../core/json.ts'
import { type AuditAction, auditActions, type AuditEvent } from '../../core/model.ts'
import { parsePath } from '../../core/names.ts'
import type { AuditFilter } from '../../core/ports.ts'
import type { Context } from '../context.ts'
import { parseCount, parseSince, parseUntil } from '../options.ts'
import type { Register, Run } from '../program.ts'
import { auditCsv, auditLines, eventData } from '../render/audit.ts'

interface FilterOptions {
  readonly action?: AuditAction
  readonly since?: string
  readonly until?: string
  readonly path?: string
  readonly run?: string
}

interface ListOptions extends FilterOptions {
  readonly limit?: string
}

interface ExportOptions extends FilterOptions {
  readonly format: 'csv' | 'jsonl'
  readonly month?: string
  readonly output?: string
}

export const audit: Register = (parent, run) => {
  const group = parent
    .command('audit')
    .helpGroup('Looking back:')
    .summary('what happened, and proof that nothing was taken out')
    .description('The audit trail. "rotate audit" alone, or with a project, lists it.')
  list(group, run)
  verify(group, run)
  exportTo(group, run)
}

function filters(command: Command): Command {
  return command
    .addOption(new Option('--action <action>', 'only this action, such as secret_rotated').choices(auditActions))
    .option('--since <date>', 'from this date, or this long ago: 2026-11-01, 7d')
    .option('--until <date>', 'to this date')
    .option('--path <path>', 'only this secret')
    .option('--run <id>', 'only this run')
}

function toFilter(ctx: Context, project: string | undefined, options: FilterOptions): AuditFilter {
  const now = ctx.clock.now()
  if (project?.includes('/') === true && options.path !== undefined) throw usage('a path and --path contradict each other')
  const path = options.path ?? (project?.includes('/') === true ? project : undefined)
  if (project !== undefined) parsePath(project)
  return {
    ...(options.action === undefined ? {} : { action: options.action }),
    ...(path === undefined ? {} : { path: parsePath(path) }),
    ...(project === undefined || project.includes('/') ? {} : { project }),
    ...(options.run === undefined ? {} : { runId: options.run }),
    ...(options.since === undefined ? {} : { since: parseSince(options.since, '--since', now) }),
    ...(options.until === undefined ? {} : { until: parseUntil(options.until, '--until', now) }),
  }
}

function list(group: Command, run: Run): void {
  filters(group.command('list [project]', { isDefault: true }).summary('the events, oldest first'))
    .description('Lists events, oldest first.\n\nExample:\n  rotate audit my-project --action secret_rotated --since 30d')
    .option('--limit <n>', 'only the newest N')
    .action(
      run(async (ctx, project: string | undefined, options: ListOptions) => {
        const filter = toFilter(ctx, project, options)
        const limit = options.limit === undefined ? Number.POSITIVE_INFINITY : parseCount(options.limit, '--limit', 1, 1_000_000)
        const deps = await ctx.deps({ readonly: true })
        const events: AuditEvent[] = []
        for await (const event of deps.vault.auditEvents(filter)) {
          events.push(event)
          if (events.length > limit) events.shift()
        }
        ctx.out.data({ events: events.map(eventData) })
        if (events.length === 0) {
          ctx.out.note('no events')
          return
        }
        await ctx.out.table(
          ['WHEN', 'ACTION', 'SECRET', 'BY', 'STATUS', 'DETAIL'],
          events.map((event) => [
            ctx.times.at(event.at),
            event.action,
            event.path ?? '-',
            event.triggeredBy === 'manual' ? event.actor : `${event.actor} (${event.triggeredBy})`,
            event.status,
            detailOf(event),
          ]),
        )
      }),
    )
}

/** What is worth a glance, in one cell. */
function detailOf(event: AuditEvent): string {
  const { version, old_key, new_key, reason } = event.metadata as Readonly<Partial<Record<string, string | number | boolean | null>>>
  const parts = [
    version === undefined || version === null ? '' : `v${version}`,
    old_key && new_key ? `${old_key} → ${new_key}` : String(new_key ?? old_key ?? ''),
    reason ? `"${reason}"` : '',
    event.runId ?? '',
  ]
  return parts.filter((part) => part !== '').join('  ')
}

function verify(group: Command, run: Run): void {
  group
    .command('verify')
    .summary('recompute the whole chain')
    .description(
      'Recomputes the chain of hashes. With --anchor also that it still runs through a head noted earlier (the output of: rotate audit verify --json).',
    )
    .option('--anchor <file>', 'JSON with "rows" and "head", kept elsewhere')
    .action(
      run(async (ctx, options: { readonly anchor?: string }) => {
        const anchor = options.anchor === undefined ? undefined : await readAnchor(ctx, options.anchor)
        const deps = await ctx.deps({ readonly: true })
        const { auditBroken, verifyAudit } = await import('../../app/audit.ts')
        const verdict = await verifyAudit(deps, anchor)
        ctx.out.data({ ok: verdict.ok, rows: verdict.rows, head: verdict.head, firstBad: verdict.firstBad, anchored: verdict.anchored })
        if (!verdict.ok) throw auditBroken(verdict)
        ctx.out.line(`ok: ${verdict.rows} rows, chain intact${verdict.anchored === true ? ', runs through the anchor' : ''}`)
        ctx.out.line(`head ${verdict.head}`)
      }),
    )
}

async function readAnchor(ctx: Context, file: string): Promise<Anchor> {
  const parsed = parseJsonObject((await ctx.input.file(resolve(ctx.host.cwd, file), '--anchor', 64 * 1024)).reveal(), '--anchor')
  const inner = isRecord(parsed['data']) ? parsed['data'] : parsed
  const { rows, head } = inner as Readonly<Partial<Record<string, unknown>>>
  if (typeof rows !== 'number' || typeof head !== 'string' || !/^[0-9a-f]{64}$/.test(head))
    throw usage('--anchor: the file has no "rows" and "head"', 'keep the output of: rotate audit verify --json')
  return { rows, head }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return value !== null && typeof value === 'object'
}

function exportTo(group: Command, run: Run): void {
  filters(group.command('export [project]').summary('as CSV or JSON lines, for auditors'))
    .description(
      'Exports events for auditors; the export itself goes on record.\n\nExample:\n  rotate audit export --format csv --month 2026-10 -o october.csv',
    )
    .addOption(new Option('--format <format>', 'how it is written').choices(['csv', 'jsonl']).default('csv'))
    .option('--month <month>', 'one month in UTC, such as 2026-10')
    .option('-o, --output <file>', 'into a file (0600) instead of stdout')
    .action(
      run(async (ctx, project: string | undefined, options: ExportOptions) => {
        const filter = { ...toFilter(ctx, project, options), ...monthOf(options) }
        const file = options.output === undefined ? undefined : resolve(ctx.host.cwd, options.output)
        const deps = await ctx.deps()
        const { recordExport, snapshotOf } = await import('../../app/audit.ts')
        let rows = 0
        const counted = (async function* () {
          for await (const event of snapshotOf(deps, filter)) {
            rows++
            yield event
          }
        })()
        const pieces = options.format === 'csv' ? auditCsv(counted) : auditLines(counted)
        if (file === undefined) {
          for await (const piece of pieces) {
            ctx.out.raw(piece)
            if (ctx.out.readerGone || ctx.out.failure !== undefined) return
          }
        } else {
          const { writeOutFile } = await import('../out-file.ts')
          const chunks: Uint8Array[] = []
          for await (const piece of pieces) chunks.push(new TextEncoder().encode(piece))
          writeOutFile(file, Buffer.concat(chunks), '--output', ctx.host.random)
        }
        if (!ctx.globals.dryRun) await recordExport(deps, { format: options.format, rows, month: options.month ?? null })
        if (file !== undefined) {
          ctx.out.data({ file, rows, format: options.format })
          ctx.out.line(`${rows} events in ${file}`)
        }
      }),
    )
}

function monthOf(options: ExportOptions): Pick<AuditFilter, 'since' | 'until'> {
  const month = options.month
  if (month === undefined) return {}
  if (options.since !== undefined || options.until !== undefined) throw usage('--month contradicts --since and --until')
  const parts = /^(\d{4})-(0[1-9]|1[0-2])$/.exec(month)
  if (parts === null) throw usage('--month must look like 2026-10')
  const [year, number] = [Number(parts[1]), Number(parts[2])]
  return { since: Date.UTC(year, number - 1, 1), until: Date.UTC(year, number, 1) - 1 }
}
