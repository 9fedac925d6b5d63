/**
 * `audit list|verify|pubkey|export|verify-export|prune`: what happened, and proof that
 * nothing was taken out.
 */
import { resolve } from 'node:path'
import { type Command, Option } from 'commander'
import type { AuditFilter } from '../../core/audit-trail.ts'
import { iso } from '../../core/duration.ts'
import { usage } from '../../core/errors.ts'
import { type AuditAction, auditActions, type AuditEvent } from '../../core/model.ts'
import { parsePath } from '../../core/names.ts'
import type { Context } from '../context.ts'
import { parseCount, parseSince, parseUntil } from '../options.ts'
import type { Register, Run } from '../command.ts'
import { eventData } from '../render/audit.ts'
import { pickDefined } from '../../core/defined.ts'

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
  readonly note?: string
  readonly force?: boolean
}

export const audit: Register = (parent, run) => {
  const group = parent
    .command('audit')
    .helpGroup('Looking back:')
    .summary('what happened, and proof that nothing was taken out')
    .description('The audit trail. "rotate audit" alone, or with a project, lists it.')
  list(group, run)
  verify(group, run)
  pubkey(group, run)
  exportTo(group, run)
  verifyExport(group, run)
  prune(group, run)
}

function filters(command: Command): Command {
  return command
    .addOption(
      new Option('--action <action>', 'only this action, such as secret_rotated').choices(
        auditActions,
      ),
    )
    .option('--since <date>', 'from this date, or this long ago: 2026-11-01, 7d')
    .option('--until <date>', 'to this date')
    .option('--path <path>', 'only this secret')
    .option('--run <id>', 'only this run')
}

function toFilter(ctx: Context, project: string | undefined, options: FilterOptions): AuditFilter {
  const now = ctx.clock.now()
  if (project?.includes('/') === true && options.path !== undefined)
    throw usage('a path and --path contradict each other')
  const path = options.path ?? (project?.includes('/') === true ? project : undefined)
  if (project !== undefined) parsePath(project)
  return {
    ...pickDefined({ action: options.action }),
    ...(path === undefined ? {} : { path: parsePath(path) }),
    ...(project === undefined || project.includes('/') ? {} : { project }),
    ...pickDefined({ runId: options.run }),
    ...(options.since === undefined ? {} : { since: parseSince(options.since, '--since', now) }),
    ...(options.until === undefined ? {} : { until: parseUntil(options.until, '--until', now) }),
  }
}

function list(group: Command, run: Run): void {
  filters(group.command('list [project]', { isDefault: true }).summary('the events, oldest first'))
    .description(
      'Lists events, oldest first.\n\nExample:\n  rotate audit my-project --action ' +
        'secret_rotated --since 30d',
    )
    .option('--limit <n>', 'only the newest N')
    .action(
      run(async (ctx, project: string | undefined, options: ListOptions) => {
        const filter = toFilter(ctx, project, options)
        const limit =
          options.limit === undefined
            ? Number.POSITIVE_INFINITY
            : parseCount(options.limit, '--limit', 1, 1_000_000)
        const deps = await ctx.deps({ readonly: true })
        const events: AuditEvent[] = []
        // Backwards every event is proven as it comes, in one pass; a limit then reads no
        // more than it needs.
        for await (const event of deps.vault.auditEvents(filter, 'newest-first'))
          if (events.push(event) >= limit) break
        events.reverse()
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

/** The details of an event that matter most, in one cell. */
function detailOf(event: AuditEvent): string {
  const { version, old_key, new_key, reason } = event.metadata as Readonly<
    Partial<Record<string, string | number | boolean | null>>
  >
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
      'Recomputes the chain of hashes and prints a signed checkpoint of it. With --anchor ' +
        'also that the chain still runs through an earlier checkpoint: keep ' +
        'one where the holders of the vault can not write, or they could rewrite everything.\n\n' +
        'Example:\n  rotate audit verify --anchor checkpoint.txt',
    )
    .option(
      '--anchor <checkpoint>',
      'an earlier checkpoint, or a file that holds one (also the output of: rotate audit ' +
        'verify --json)',
    )
    .action(
      run(async (ctx, options: { readonly anchor?: string }) => {
        const anchor =
          options.anchor === undefined ? undefined : await readAnchor(ctx, options.anchor)
        const deps = await ctx.deps({ readonly: true })
        const { auditBroken } = await import('../../app/vault/audit.ts')
        const verdict = await (await deps.vault.trail()).verify(anchor)
        const { ok, rows, head, firstBad, anchored, pruned, checkpoint } = verdict
        ctx.out.data({
          ok,
          rows,
          head,
          firstBad,
          anchored,
          pruned,
          checkpoint: checkpoint?.note ?? null,
          checkpointLine: checkpoint?.line ?? null,
        })
        if (!ok) throw auditBroken(verdict)
        const without = pruned === 0 ? '' : `, ${pruned} of them pruned`
        const through = anchored === true ? ', runs through the anchor' : ''
        ctx.out.line(`ok: ${rows} rows, chain intact${without}${through}`)
        ctx.out.line(`head ${head}`)
        if (checkpoint === null) return
        ctx.out.line(`checkpoint ${checkpoint.line}`)
        ctx.out.line()
        for (const line of checkpoint.note.trimEnd().split('\n')) ctx.out.line(line)
      }),
    )
}

/**
 * The checkpoint itself, or the file that holds it: everything that is printed beside the
 * note is skipped.
 */
async function readAnchor(ctx: Context, given: string): Promise<string> {
  const inline = given.includes('\n') || /^rotate\/\S+ \d+ \S+ \S+$/.test(given.trim())
  const text = inline
    ? given
    : (
        await ctx.input.file(resolve(ctx.host.cwd, given), '--anchor', { limit: 64 * 1024 })
      ).reveal()
  const at = text.search(/^rotate\/[^\s ]+$/m)
  return at > 0 && !text.trimStart().startsWith('{') ? text.slice(at) : text
}

function pubkey(group: Command, run: Run): void {
  group
    .command('pubkey')
    .summary('the key that verifies checkpoints and exports')
    .description(
      'Prints the public key of checkpoints and exports. Hand it to auditors on another way ' +
        'than the exports.',
    )
    .action(
      run(async (ctx) => {
        const { vault } = await ctx.deps({ readonly: true })
        const key = (await vault.trail()).pubkey()
        ctx.out.data({ vaultId: vault.vaultId, pubkey: key })
        ctx.out.line(key)
      }),
    )
}

function exportTo(group: Command, run: Run): void {
  filters(group.command('export [project]').summary('as CSV or JSON lines, for auditors'))
    .description(
      'Exports events for auditors; the export itself goes on record.\n\n' +
        'JSON lines carry their proof: "rotate audit verify-export" needs only the public ' +
        'key, and finds every line that was cut, changed, moved or hidden. ' +
        '--month, --since and --until choose a stretch of the chain; --action, --path, --run ' +
        'and a project hide the content of all other events in it, ' +
        'whose hashes are exported so that the chain stays whole. CSV holds only the chosen ' +
        'events; --note writes a signed note that proves its bytes.\n\n' +
        'Examples:\n  rotate audit export --format csv --month 2026-10 -o october.csv --note ' +
        'october.note\n' +
        '  rotate audit export --format jsonl -o audit.jsonl',
    )
    .addOption(
      new Option('--format <format>', 'how it is written').choices(['csv', 'jsonl']).default('csv'),
    )
    .option('--month <month>', 'one month in UTC, such as 2026-10')
    .option('-o, --output <file>', 'into a new file (0600) instead of stdout')
    .option('--note <file>', 'also write the signed note into a new file')
    .option('--force', 'replace existing files')
    .action(
      run(async (ctx, project: string | undefined, options: ExportOptions) => {
        const filter = { ...toFilter(ctx, project, options), ...monthOf(options) }
        const { runExport } = await import('../audit-export.ts')
        await runExport(ctx, filter, options)
      }),
    )
}

function verifyExport(group: Command, run: Run): void {
  group
    .command('verify-export <file>')
    .summary('verify an export without the vault')
    .description(
      'Verifies an export with the public key alone: no vault, no secret. "-" reads stdin.\n\n' +
        'Example:\n  rotate audit verify-export audit.jsonl --pubkey "$(cat rotate.pub)"',
    )
    .requiredOption('--pubkey <key>', 'what "rotate audit pubkey" printed, or a file that holds it')
    .option('--note <file>', 'for CSV: the note that was written beside it')
    .action(
      run(
        async (ctx, file: string, options: { readonly pubkey: string; readonly note?: string }) => {
          const { runVerifyExport } = await import('../audit-export.ts')
          await runVerifyExport(ctx, file, options)
        },
      ),
    )
}

function prune(group: Command, run: Run): void {
  group
    .command('prune')
    .summary('drop the content of very old events')
    .description(
      'Drops the content of events older than that, in calendar years. Their hashes stay, so ' +
        'the chain and all earlier checkpoints still verify. ' +
        'Events are kept for seven years; younger ones need --force --reason.\n\nExample:\n  ' +
        'rotate audit prune --older-than 7y',
    )
    .requiredOption('--older-than <years>', 'such as 7y')
    .option('--force', 'drop events younger than seven years; needs --reason')
    .action(
      run(async (ctx, options: { readonly olderThan: string; readonly force?: boolean }) => {
        const years = /^(?:(\d{1,3})y|P(\d{1,3})Y)$/.exec(options.olderThan)
        if (years === null) throw usage('--older-than takes whole years, such as 7y')
        const { pruneAudit } = await import('../../app/vault/audit.ts')
        const { dryRun } = ctx.globals
        const { from, to, before } = await pruneAudit(await ctx.deps({ readonly: dryRun }), {
          years: Number(years[1] ?? years[2]),
          force: options.force === true,
          dryRun,
          confirm: (range) =>
            ctx.input.confirm(
              `Drop the content of ${range.to - range.from} audit events for good?`,
            ),
        })
        const pruned = to - from
        const ends = pruned === 0 ? { first: null, last: null } : { first: from + 1, last: to }
        ctx.out.data({ pruned, ...ends, before: iso(before), dryRun })
        if (pruned === 0) ctx.out.line(`no events from before ${iso(before)}`)
        else
          ctx.out.line(
            `${dryRun ? 'would drop' : 'dropped'} the content of events ${from + 1} to ` +
              `${to}, all from before ${iso(before)}`,
          )
      }),
    )
}

function monthOf(options: ExportOptions): Pick<AuditFilter, 'since' | 'until'> {
  const month = options.month
  if (month === undefined) return {}
  if (options.since !== undefined || options.until !== undefined)
    throw usage('--month contradicts --since and --until')
  const parts = /^(\d{4})-(0[1-9]|1[0-2])$/.exec(month)
  if (parts === null) throw usage('--month must look like 2026-10')
  const [year, number] = [Number(parts[1]), Number(parts[2])]
  return { since: Date.UTC(year, number - 1, 1), until: Date.UTC(year, number, 1) - 1 }
}
