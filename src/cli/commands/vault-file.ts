/** `vault info|check|backup|restore|salvage|accept-rollback`: the life of the file. */
import { existsSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { iso, isoOrNull } from '../../core/duration.ts'
import { RotateError, usage } from '../../core/errors.ts'
import type { VaultReport, VaultStanding } from '../../core/ports.ts'
import { visible } from '../../core/names.ts'
import type { Context } from '../context.ts'
import { parseCount } from '../options.ts'
import type { Run } from '../command.ts'
import { pickDefined } from '../../core/defined.ts'

/** Adds the sub-commands to the group `vault`. */
export function addFileCommands(group: Command, run: Run): void {
  addInfo(group, run)
  addCheck(group, run)
  addBackup(group, run)
  addRestore(group, run)
  addSalvage(group, run)
  addAccept(group, run)
  addVerifyCopy(group, run)
}

const marks: Readonly<Record<VaultStanding['mark'], string>> = {
  fresh: 'the newest state that was seen here, or a later one',
  unmarked: 'never seen at this place by this user',
  behind: 'OLDER than the state that was seen here',
  forked: 'has ANOTHER PAST than the state that was seen here',
  unusable: "unknown: the state directory can't be used",
  off: 'unknown: there is no state directory',
}

function addInfo(group: Command, run: Run): void {
  group
    .command('info')
    .summary('what this vault is, and what its word is worth here')
    .description(
      'Shows id, size, unlockers and backups, and whether old keys may be ended on the word ' +
        'of this file.',
    )
    .action(
      run(async (ctx) => {
        const deps = await ctx.deps({ readonly: true, freshness: 'report' })
        const { backupState } = await import('../../app/vault/backup-state.ts')
        const { vault } = deps
        const door = await ctx.host.vaults()
        const standing = await vault.standing()
        const backups = await backupState(vault)
        const last = backups.made.at(-1)
        const data = {
          file: vault.file,
          vaultId: vault.vaultId,
          format: (await door.inspectVault(vault.file)).format,
          bytes: statSync(vault.file).size,
          unlockers: vault.unlockers.map(({ id, kind, createdAt }) => ({
            id,
            kind,
            createdAt: iso(createdAt),
          })),
          standing,
          backup: {
            configured: backups.setting ?? null,
            last:
              last === undefined
                ? null
                : { file: last.file, at: isoOrNull(last.at), sha256: last.sha256 },
          },
        }
        ctx.out.data(data)
        ctx.out.line(`file       ${data.file} (${data.bytes} bytes, format ${data.format})`)
        ctx.out.line(`vault      ${data.vaultId}`)
        ctx.out.line(`unlockers  ${data.unlockers.map(({ kind }) => kind).join(', ')}`)
        ctx.out.line(`freshness  ${marks[standing.mark]}`)
        const { setting } = backups
        const trusted = standing.trusted
          ? 'yes'
          : `no, nothing is revoked on its word: ${standing.why ?? ''}`
        const kept =
          setting === undefined ? 'not configured' : `in ${setting.dir}, ${setting.keep} are kept`
        const newest =
          last === undefined ? 'none is known' : `newest ${last.file}, ${ctx.times.when(last.at)}`
        ctx.out.line(`trusted    ${trusted}`)
        ctx.out.line(`backups    ${kept}`)
        ctx.out.line(`           ${newest}`)
      }),
    )
}

function addCheck(group: Command, run: Run): void {
  group
    .command('check')
    .summary('verify the whole vault')
    .description(
      'Verifies every row, the audit chain and the freshness, in short reads while others go ' +
        'on. --deep also opens every row and lets SQLite check its file. Exit 24 when something ' +
        'is wrong.\n\nExample:\n  rotate vault check --deep',
    )
    .option('--deep', 'also open every row, and check the structure of the file')
    .action(
      run(async (ctx, options: { readonly deep?: true }) => {
        const report = await verify(ctx, options.deep === true)
        ctx.out.data(report)
        for (const problem of report.problems) ctx.out.line(`fail ${problem}`)
        if (!report.ok) throw (await import('../../app/rotation/upkeep.ts')).broken(report.problems)
        ctx.out.line(
          `ok: ${report.objects} objects, ${report.versions} values, ${report.auditRows} ` +
            'audit events',
        )
      }),
    )
}

/** Verifies the vault. One that can't even be opened is a report with that problem. */
async function verify(ctx: Context, deep: boolean): Promise<VaultReport> {
  try {
    const deps = await ctx.deps({ readonly: true, freshness: 'report' })
    return await (await deps.vault.care()).verify({ deep })
  } catch (error) {
    if (!(error instanceof RotateError) || error.code !== 'tampered') throw error
    return {
      ok: false,
      problems: [error.message],
      commit: 0,
      objects: 0,
      versions: 0,
      auditRows: 0,
    }
  }
}

interface BackupOptions {
  readonly configure?: string
  readonly keep?: string
  readonly off?: true
}

function addBackup(group: Command, run: Run): void {
  group
    .command('backup')
    .summary('copy the vault to a new file, verified')
    .description(
      'Copies the vault while it is in use, and has the copy verified by a process of its own ' +
        'before it gets its name. It is opened by the same keys; nothing is ever overwritten.\n' +
        'With --configure, run-due makes one a day, and no old key is ended before a backup ' +
        'holds its replacement.\n\n' +
        'Examples:\n  rotate vault backup /mnt/usb/vault-2026-11-21.db\n  rotate vault backup ' +
        '--configure /mnt/backups --keep 14',
    )
    .argument('[file]', 'a file that does not exist yet')
    .option('--configure <dir>', 'from now on keep backups in this directory')
    .option('--keep <n>', 'with --configure: so many of them', '7')
    .option('--off', 'end what --configure began')
    .action(
      run(async (ctx, file: string | undefined, options: BackupOptions) => {
        const use = await import('../../app/vault/backup.ts')
        if (options.off === true || options.configure !== undefined) {
          if (file !== undefined || (options.off === true && options.configure !== undefined))
            throw usage('a file, --configure and --off contradict each other')
          const setting =
            options.configure === undefined
              ? undefined
              : {
                  dir: resolve(ctx.host.cwd, options.configure),
                  keep: parseCount(options.keep ?? '7', '--keep', 1, 1000),
                }
          if (!ctx.globals.dryRun) await use.configureBackups(await ctx.deps(), setting)
          const { dryRun } = ctx.globals
          ctx.out.data({ configured: setting ?? null, ...(dryRun ? { dryRun } : {}) })
          const what =
            setting === undefined
              ? 'no backups are made any more'
              : `run-due keeps ${setting.keep} backups in ${setting.dir}`
          ctx.out.line(dryRun ? `dry run: nothing was changed; without it: ${what}` : what)
          return
        }
        if (file === undefined) throw usage('which file?', 'rotate vault backup FILE')
        const target = resolve(ctx.host.cwd, file)
        if (ctx.globals.dryRun) {
          ctx.out.note(`dry run: would copy the vault to ${target}`)
          return
        }
        const made = await use.makeBackup(await ctx.deps(), target)
        ctx.out.data({
          file: made.file,
          bytes: made.bytes,
          sha256: made.sha256,
          versions: made.versions,
        })
        ctx.out.line(`${made.file}: ${made.bytes} bytes, ${made.versions} values, verified`)
        ctx.out.line(`sha256 ${made.sha256}`)
      }),
    )
}

function addRestore(group: Command, run: Run): void {
  group
    .command('restore')
    .summary('put a backup where the vault is to be')
    .description(
      'Copies a backup to the place of the vault (--vault), after verifying it. An existing ' +
        'vault is never overwritten: move it away first.\n' +
        'The credentials may have changed since the backup: until "rotate reconcile --apply" ' +
        'has looked, nothing is revoked.\n\n' +
        'Example:\n  mv ~/.local/share/rotate/vault.db ~/vault.broken && rotate vault restore ' +
        '/mnt/usb/vault-2026-11-21.db',
    )
    .argument('<file>', 'the backup')
    .action(
      run(async (ctx, file: string) => {
        const target = ctx.vaultFile()
        if (existsSync(target)) throw inTheWay(target)
        const from = resolve(ctx.host.cwd, file)
        const opening = await ctx.opening(from)
        const { proverOf } = await import('../../app/vault/prove-copy.ts')
        if (ctx.globals.dryRun) {
          ctx.out.note(`dry run: would copy ${from} to ${target}`)
          return
        }
        const door = await ctx.host.vaults()
        const restored = await door.restoreVault({
          ...opening,
          file: target,
          from,
          prove: proverOf(ctx.host.self, ctx.signal),
          entry: {
            action: 'vault_restored',
            path: null,
            actor: ctx.actor,
            triggeredBy: 'manual',
            status: 'success',
            runId: null,
            metadata: { from, ...pickDefined({ reason: ctx.globals.reason }) },
          },
        })
        const { sha256 } = await import('../../app/vault/backup.ts')
        ctx.out.data({
          file: restored.file,
          bytes: restored.bytes,
          sha256: await sha256(restored.file),
          versions: restored.versions,
        })
        ctx.out.line(`${restored.file}: ${restored.versions} values, verified`)
        if (restored.behind > 0)
          ctx.out.warn(
            `the vault that was last seen at this place was ${restored.behind} commits ahead ` +
              'of the backup',
          )
        ctx.out.note('nothing is revoked until this has looked: rotate reconcile --apply')
      }),
    )
}

function inTheWay(target: string): RotateError {
  return new RotateError('conflict', `there is a vault already: ${visible(target, 300)}`, {
    hint: 'move it away first, or name another place with --vault',
    details: { vault: target },
  })
}

function addSalvage(group: Command, run: Run): void {
  group
    .command('salvage')
    .summary('save what can be saved from a damaged vault')
    .description(
      'Writes every row that still authenticates into a new vault with the same unlockers, ' +
        'and says what was lost. The damaged file is only read. Prefer a backup if there is a ' +
        'recent one.\n\nExample:\n  rotate vault salvage ~/vault.salvaged.db',
    )
    .argument('<out>', 'a file that does not exist yet')
    .action(
      run(async (ctx, out: string) => {
        const target = resolve(ctx.host.cwd, out)
        const opening = await ctx.opening()
        if (ctx.globals.dryRun) {
          ctx.out.note(`dry run: would write what can be saved to ${target}`)
          return
        }
        const door = await ctx.host.vaults()
        const entry = {
          action: 'vault_restored',
          path: null,
          actor: ctx.actor,
          triggeredBy: 'manual',
          status: 'success',
          runId: null,
          metadata: { salvaged_from: opening.file, ...pickDefined({ reason: ctx.globals.reason }) },
        } as const
        const saved = await door.salvageVault({ ...opening, target, entry })
        ctx.out.data(saved)
        ctx.out.line(
          `${saved.file}: ${saved.secrets} secrets, ${saved.versions} values, ${saved.runs} ` +
            `runs, ${saved.auditRows} audit events`,
        )
        for (const line of saved.lost) ctx.out.line(`lost: ${line}`)
        if (saved.lost.length === 0) ctx.out.line('nothing was lost')
        ctx.out.note(
          `use it with --vault ${saved.file}, or move it into place; nothing is revoked ` +
            'until this has looked: rotate reconcile --apply',
        )
      }),
    )
}

function addAccept(group: Command, run: Run): void {
  group
    .command('accept-rollback')
    .summary('answer for an older, copied or unknown vault file')
    .description(
      'Says that this file is the one to go on with, although it is older than what was seen ' +
        'here, restored, copied or moved. What was seen before is forgotten, and old keys are ' +
        'ended again on its word.\n' +
        'Prefer "rotate reconcile --apply" where it is possible: it looks. Needs --reason, ' +
        'and --yes without a terminal.\n\nExample:\n  rotate vault accept-rollback --reason ' +
        '"disk failed, backup of Friday" --yes',
    )
    .action(
      run(async (ctx) => {
        const { reason } = ctx.globals
        if (reason === undefined)
          throw usage('accept-rollback needs a reason, for the audit trail', 'add --reason "why"')
        const deps = await ctx.deps({ freshness: 'report' })
        const standing = await deps.vault.standing()
        const data = { vaultId: deps.vault.vaultId, file: deps.vault.file, before: standing }
        if (standing.trusted) {
          ctx.out.data({ ...data, accepted: false })
          ctx.out.line('already so: this vault is trusted here')
          return
        }
        ctx.out.note(
          `${deps.vault.file} (${deps.vault.vaultId}): ${standing.why ?? marks[standing.mark]}`,
        )
        if (ctx.globals.dryRun) return
        const { droppedBy, tellDropped } = await import('../overrides.ts')
        const dropped = droppedBy({ acceptRollback: true })
        tellDropped(ctx, dropped, 'before')
        await ctx.input.confirm('Go on with this file, and end old keys again on its word?', true)
        const care = await deps.vault.care()
        await care.accept('state', {
          action: 'rollback_accepted',
          path: null,
          actor: deps.actor,
          triggeredBy: 'manual',
          status: 'success',
          runId: null,
          metadata: { mark: standing.mark, copy: standing.copy, reason },
        })
        ctx.out.data({ ...data, accepted: true })
        ctx.out.line('accepted: this state of the vault counts from now on')
        tellDropped(ctx, dropped, 'after')
      }),
    )
}

/**
 * Adds the hidden command that src/app/vault/prove-copy.ts starts; the root key comes on
 * stdin.
 */
function addVerifyCopy(group: Command, run: Run): void {
  group
    .command('verify-copy <file>', { hidden: true })
    .summary('verify a copy that another process has made')
    .action(
      run(async (ctx, file: string) => {
        const key = await ctx.input.stdin({
          what: 'the key on stdin',
          question: 'Key',
          extent: 'line',
          limit: 1024,
          otherwise: 'pipe it in',
        })
        const { chomp } = await import('../input.ts')
        const door = await ctx.host.vaults()
        ctx.out.data(await door.proveCopy(resolve(ctx.host.cwd, file), chomp(key)))
      }),
    )
}
