import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Unlock, VaultDoor } from '../../app/vault/vaults.ts'
import { iso } from '../../core/duration.ts'
import { RotateError, usage } from '../../core/errors.ts'
import { visible } from '../../core/names.ts'
import { Secret } from '../../core/secret.ts'
import type { Context } from '../context.ts'
import { Leftovers } from '../leftovers.ts'
import { checkOutFile, writeOutFile } from '../out-file.ts'
import { stateDirIfAny } from '../places.ts'
import type { Register } from '../command.ts'
import { shellWord } from '../render/shell-word.ts'
import { findSource, type UnlockSource } from '../sources.ts'
import { readPassphrase } from '../unlock.ts'

interface Options {
  readonly recoveryOut?: string
}

export const init: Register = (parent, run) => {
  parent
    .command('init')
    .helpGroup('Start:')
    .summary('create the vault')
    .description(
      'Creates the vault. It is opened by a key file (--key-file, made when missing), by a ' +
        'passphrase, or by either. Missing directories are\n' +
        'made, for you alone (0700); where something can not be made, nothing of it stays.\n\n' +
        'Examples:\n' +
        '  rotate init                                   # asks for a passphrase\n' +
        '  rotate init --key-file ~/.config/rotate/key   # for cron: no question, ever',
    )
    .option('--recovery-out <file>', 'write a recovery key to a new file (0600); keep it offline')
    .action(
      run(async (ctx, options: Options) => {
        const file = ctx.vaultFile()
        if (existsSync(file)) throw exists(file)
        const recoveryOut =
          options.recoveryOut === undefined ? undefined : resolve(ctx.host.cwd, options.recoveryOut)
        if (recoveryOut !== undefined) checkOutFile(recoveryOut, '--recovery-out', { fresh: true })
        const sources = unlockersWanted(ctx)
        if (ctx.globals.dryRun) {
          ctx.out.note(
            `dry run: would create ${file}, opened by ` +
              `${sources.map((source) => source.kind).join(' and ') || 'a passphrase'}`,
          )
          return
        }
        await create(ctx, file, sources, recoveryOut)
      }),
    )
}

function exists(file: string): RotateError {
  return new RotateError('conflict', `there is a vault already: ${visible(file, 300)}`, {
    hint: 'use it, or name another file with --vault',
    details: { vault: file },
  })
}

/**
 * What shall open the new vault. Both a key file and a passphrase may be given here,
 * unlike where a vault is opened. Empty where nothing is given and a question can be
 * asked.
 */
function unlockersWanted(ctx: Context): readonly UnlockSource[] {
  const { globals, host } = ctx
  const passphrase = findSource({ ...globals, keyFile: undefined }, {}, host.cwd)
  if (globals.keyFile !== undefined) {
    const key = findSource({ ...noSources, keyFile: globals.keyFile }, {}, host.cwd)
    return [key, passphrase].filter((source) => source !== undefined)
  }
  const only = passphrase ?? findSource(noSources, host.env, host.cwd)
  if (only !== undefined) return [only]
  if (!ctx.input.interactive) {
    throw usage(
      'a vault needs something that opens it, and there is no terminal to ask on',
      'give --key-file F, --passphrase-file F, --passphrase-command CMD or --passphrase-fd N',
    )
  }
  return []
}

const noSources = {
  keyFile: undefined,
  passphraseFile: undefined,
  passphraseCommand: undefined,
  passphraseFd: undefined,
}

async function create(
  ctx: Context,
  file: string,
  sources: readonly UnlockSource[],
  recoveryOut: string | undefined,
): Promise<void> {
  const door = await ctx.host.vaults()
  const leftovers = new Leftovers()
  leftovers.willMake(file)
  try {
    const unlockers: Unlock[] = []
    let keyFile: string | undefined
    for (const source of sources) {
      if (source.kind === 'key-file' && !existsSync(source.path)) keyFile = source.path
      unlockers.push(await toUnlock(ctx, source, door, leftovers))
    }
    if (sources.length === 0)
      unlockers.push({ kind: 'passphrase', passphrase: await newPassphrase(ctx) })
    const recovery =
      recoveryOut !== undefined || ctx.input.interactive
        ? await door.newRecoveryKey(ctx.host.random)
        : undefined
    if (recovery !== undefined) unlockers.push({ kind: 'recovery', key: recovery.key })
    const [first, ...others] = unlockers
    if (first === undefined) throw usage('a vault needs something that opens it')
    if (recovery !== undefined && recoveryOut !== undefined) {
      writeOutFile(
        recoveryOut,
        new TextEncoder().encode(`${recovery.text.reveal()}\n`),
        '--recovery-out',
        ctx.host.random,
        { fresh: true },
      )
      leftovers.made(recoveryOut)
    }
    const { clock, random } = ctx.host
    const vault = await door.createVault({
      file,
      clock,
      random,
      unlockers: [first, ...others],
      actor: ctx.actor,
      stateDir: stateDirIfAny(ctx.host.env),
      warn: (text) => ctx.out.warn(text),
    })
    leftovers.keep()
    if (keyFile !== undefined)
      ctx.out.note(
        `key file made: ${keyFile} (0600). Without it the vault can't be opened; keep a copy ` +
          'apart from the vault.',
      )
    report(ctx, vault, recoveryOut === undefined ? recovery?.text : undefined, recoveryOut)
    sayNext(ctx, sources[0])
    vault.close()
  } catch (error) {
    leftovers.remove()
    throw error
  }
}

async function toUnlock(
  ctx: Context,
  source: UnlockSource,
  door: VaultDoor,
  leftovers: Leftovers,
): Promise<Unlock> {
  if (source.kind !== 'key-file')
    return {
      kind: 'passphrase',
      passphrase: await readPassphrase(source, ctx.input, ctx.host.env, ctx.signal),
    }
  if (existsSync(source.path)) return { kind: 'key-file', key: await door.readKeyFile(source.path) }
  leftovers.willMake(source.path)
  const key = await door.createKeyFile(source.path, ctx.host.random)
  leftovers.made(source.path)
  return { kind: 'key-file', key }
}

async function newPassphrase(ctx: Context): Promise<Secret> {
  const flags = '--passphrase-file, --passphrase-command, --passphrase-fd or --key-file'
  const first = await ctx.input.hidden(
    'Passphrase (several words that you use nowhere else)',
    flags,
  )
  if (first.size === 0) throw usage('the passphrase is empty')
  const second = await ctx.input.hidden('The same again', flags)
  if (!first.equals(second)) throw usage('the two passphrases differ')
  return new Secret(first.reveal().normalize('NFC'))
}

function report(
  ctx: Context,
  vault: Awaited<ReturnType<VaultDoor['createVault']>>,
  shown: Secret | undefined,
  recoveryOut: string | undefined,
): void {
  const unlockers = vault.unlockers.map(({ id, kind, createdAt }) => ({
    id,
    kind,
    createdAt: iso(createdAt),
  }))
  ctx.out.data({ vault: vault.file, vaultId: vault.vaultId, unlockers })
  ctx.out.line(`vault created: ${vault.file}`)
  ctx.out.line(`  id         ${vault.vaultId}`)
  ctx.out.line(`  opened by  ${unlockers.map((unlocker) => unlocker.kind).join(', ')}`)
  if (recoveryOut !== undefined)
    ctx.out.note(
      `recovery key written: ${recoveryOut} (0600). Keep it offline; it opens the vault.`,
    )
  if (shown !== undefined) {
    // A recovery key is shown once, on the terminal only, and only where it is made.
    ctx.out.error(
      `\nRecovery key, shown only now. Write it down and keep it offline:\n\n    ` +
        `${shown.reveal()}\n`,
    )
  }
}

/**
 * Prints lines to copy for the next commands, which do not know a place that only a flag
 * of this one has named. They are no result, so they go to stderr.
 */
function sayNext(ctx: Context, opener: UnlockSource | undefined): void {
  ctx.out.note('next:')
  if (ctx.globals.vault !== undefined)
    ctx.out.note(`  export ROTATE_VAULT=${shellWord(ctx.vaultFile())}`)
  if (opener?.from === '--key-file' && opener.kind === 'key-file')
    ctx.out.note(`  export ROTATE_KEY_FILE=${shellWord(opener.path)}`)
  if (opener?.from === '--passphrase-file' && opener.kind === 'passphrase-file')
    ctx.out.note(`  export ROTATE_PASSPHRASE_FILE=${shellWord(opener.path)}`)
  if (opener?.from === '--passphrase-command' && opener.kind === 'passphrase-command')
    ctx.out.note(`  export ROTATE_PASSPHRASE_COMMAND=${shellWord(opener.command)}`)
  ctx.out.note('  rotate set production/db/APP_PASSWORD')
}
