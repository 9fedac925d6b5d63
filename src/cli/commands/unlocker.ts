/** `unlocker list|add|remove|keygen`. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { type Command, Option } from 'commander'
import type { UnlockersView } from '../../app/vault/unlockers.ts'
import { RotateError, usage } from '../../core/errors.ts'
import type { NewUnlocker } from '../../core/ports.ts'
import type { Secret } from '../../core/secret.ts'
import { type Context, createContext } from '../context.ts'
import { Leftovers } from '../leftovers.ts'
import { checkOutFile, writeOutFile } from '../out-file.ts'
import type { Register, Run } from '../command.ts'
import { findSource } from '../sources.ts'
import { isRecoveryText, readPassphrase } from '../unlock.ts'

interface AddOptions {
  readonly kind: NewUnlocker['kind']
  readonly keyFile?: string
  readonly newKeyFile?: string
  readonly recipient?: string
  readonly newPassphraseFile?: string
  readonly newPassphraseCommand?: string
  readonly newPassphraseFd?: string
  readonly recoveryOut?: string
}

export const unlocker: Register = (parent, run) => {
  const group = parent
    .command('unlocker')
    .helpGroup('Start:')
    .summary('who can open the vault: list, add, remove')
    .description(
      'Keys and passphrases that open the vault. Any number of them open the same vault; each ' +
        'of them opens all of it.\n\n' +
        'Examples:\n' +
        '  rotate unlocker list\n' +
        '  rotate unlocker add --kind passphrase              # asks for the new passphrase ' +
        'twice\n' +
        '  rotate unlocker add --kind recipient --recipient rp1-…   # lets a colleague in, by ' +
        'the public key that he made with:\n' +
        '  rotate unlocker keygen --key-file ~/.config/rotate/key\n' +
        '  rotate unlocker remove unl_…                       # takes it away, and names the ' +
        'secrets to rotate now',
    )
  addList(group, run)
  addAdd(group, run)
  addRemove(group, run)
  addKeygen(group, run)
}

async function print(ctx: Context, view: UnlockersView): Promise<void> {
  ctx.out.data(view)
  await ctx.out.table(
    ['ID', 'KIND', 'ADDED', 'IN USE', 'PUBLIC KEY'],
    view.unlockers.map((one) => [
      one.id,
      one.kind,
      ctx.times.when(Date.parse(one.createdAt)),
      one.inUse ? 'yes' : '',
      one.recipient ?? '',
    ]),
  )
}

function addList(group: Command, run: Run): void {
  group
    .command('list', { isDefault: true })
    .summary('what opens the vault')
    .description('Lists what opens the vault.')
    .action(
      run(async (ctx) => {
        const deps = await ctx.deps({ readonly: true })
        const { listUnlockers } = await import('../../app/vault/unlockers.ts')
        await print(ctx, await listUnlockers(deps))
      }),
    )
}

function addAdd(group: Command, run: Run): void {
  group
    .command('add')
    .summary('one more way to open the vault')
    .description(
      'Adds a passphrase, a key file, a recipient or a recovery key. The vault is opened by ' +
        'what the environment says, by the passphrase flags, or by\n' +
        'a --key-file before the command; --key-file behind it is the new one where the kind ' +
        'is key-file.',
    )
    .addOption(
      new Option('--kind <kind>', 'what is added')
        .choices(['passphrase', 'key-file', 'recipient', 'recovery'])
        .makeOptionMandatory(),
    )
    .option(
      '--key-file <file>',
      'the new key file with --kind key-file (made when missing); otherwise the one that ' +
        'opens the vault',
    )
    .option('--new-key-file <file>', 'the new key file, where --key-file opens the vault')
    .option('--recipient <key>', 'public key of a recipient: rp1-…')
    .option('--new-passphrase-file <file>', 'file with the new passphrase')
    .option('--new-passphrase-command <cmd>', 'command that prints the new passphrase')
    .option('--new-passphrase-fd <n>', 'open file descriptor with the new passphrase')
    .option('--recovery-out <file>', 'write the new recovery key to a new file (0600)')
    .action(
      run(async (ctx, options: AddOptions) => {
        const opener =
          options.kind === 'key-file' && options.newKeyFile === undefined
            ? undefined
            : options.keyFile
        if (opener === undefined) await add(ctx, options)
        else {
          // This --key-file is the one that opens the vault.
          const own = createContext(
            ctx.host,
            { ...ctx.globals, keyFile: opener },
            ctx.out,
            ctx.command,
            ctx.signal,
          )
          try {
            await add(own, options)
          } finally {
            own.close()
          }
        }
      }),
    )
}

async function add(ctx: Context, options: AddOptions): Promise<void> {
  checkFlags(options)
  // Whoever can't open the vault is not asked for a new passphrase.
  const deps = await ctx.deps()
  if (ctx.globals.dryRun) {
    ctx.out.note(`dry run: would add a ${options.kind}; nothing was changed`)
    return
  }
  const leftovers = new Leftovers()
  try {
    const { unlocker: made, shown } = await make(ctx, options, leftovers)
    const { addUnlocker } = await import('../../app/vault/unlockers.ts')
    const view = await addUnlocker(deps, made)
    leftovers.keep()
    await print(ctx, view)
    ctx.out.note(`added: ${view.added} (${options.kind})`)
    // A recovery key is shown once, and on the terminal only.
    if (shown !== undefined)
      ctx.out.error(
        `\nRecovery key, shown only now. Write it down and keep it offline:\n\n    ` +
          `${shown.reveal()}\n`,
      )
  } catch (error) {
    leftovers.remove()
    throw error
  }
}

const FLAGS_OF: Readonly<Record<NewUnlocker['kind'], readonly (keyof AddOptions)[]>> = {
  passphrase: ['newPassphraseFile', 'newPassphraseCommand', 'newPassphraseFd'],
  'key-file': ['newKeyFile'],
  recipient: ['recipient'],
  recovery: ['recoveryOut'],
}

function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}

function checkFlags(options: AddOptions): void {
  for (const [kind, flags] of Object.entries(FLAGS_OF)) {
    for (const flag of flags)
      if (kind !== options.kind && options[flag] !== undefined)
        throw usage(`${flagOf(flag)} belongs to --kind ${kind}, not to ${options.kind}`)
  }
  if (options.kind === 'recipient' && options.recipient === undefined)
    throw usage(
      '--kind recipient needs --recipient rp1-…',
      'its owner gets it with: rotate unlocker keygen --key-file F',
    )
  if (options.kind === 'key-file' && (options.newKeyFile ?? options.keyFile) === undefined)
    throw usage('--kind key-file needs --key-file F')
}

async function make(
  ctx: Context,
  options: AddOptions,
  leftovers: Leftovers,
): Promise<{ readonly unlocker: NewUnlocker; readonly shown?: Secret }> {
  const door = await ctx.host.vaults()
  switch (options.kind) {
    case 'recipient':
      return {
        unlocker: {
          kind: 'recipient',
          publicKey: await door.parseRecipient(options.recipient ?? ''),
        },
      }
    case 'key-file': {
      const { key } = await keyFile(ctx, options.newKeyFile ?? options.keyFile ?? '', leftovers)
      return { unlocker: { kind: 'key-file', key } }
    }
    case 'passphrase':
      return { unlocker: { kind: 'passphrase', passphrase: await newPassphrase(ctx, options) } }
    default: {
      const out =
        options.recoveryOut === undefined ? undefined : resolve(ctx.host.cwd, options.recoveryOut)
      if (out === undefined && !ctx.input.interactive)
        throw usage(
          'a recovery key is shown on a terminal, and there is none',
          'write it to a new file with --recovery-out F',
        )
      if (out !== undefined) checkOutFile(out, '--recovery-out', { fresh: true })
      const { key, text } = await door.newRecoveryKey(ctx.host.random)
      if (out === undefined) return { unlocker: { kind: 'recovery', key }, shown: text }
      writeOutFile(
        out,
        new TextEncoder().encode(`${text.reveal()}\n`),
        '--recovery-out',
        ctx.host.random,
        { fresh: true },
      )
      leftovers.made(out)
      return { unlocker: { kind: 'recovery', key } }
    }
  }
}

/**
 * Reads a key file, or makes it when it is missing, in a directory of its own if need be.
 */
async function keyFile(
  ctx: Context,
  given: string,
  leftovers: Leftovers,
): Promise<{ readonly key: Secret; readonly path: string }> {
  const door = await ctx.host.vaults()
  const path = resolve(ctx.host.cwd, given)
  if (existsSync(path)) return { key: await door.readKeyFile(path), path }
  leftovers.willMake(path)
  const key = await door.createKeyFile(path, ctx.host.random)
  leftovers.made(path)
  ctx.out.note(`key file made: ${path} (0600); keep a copy apart from the vault`)
  return { key, path }
}

async function newPassphrase(ctx: Context, options: AddOptions): Promise<Secret> {
  const { newPassphraseFile, newPassphraseCommand, newPassphraseFd } = options
  if (newPassphraseFd !== undefined && !/^\d{1,6}$/.test(newPassphraseFd))
    throw usage('--new-passphrase-fd must be the number of an open file descriptor')
  const named = findSource(
    {
      keyFile: undefined,
      passphraseFile: newPassphraseFile,
      passphraseCommand: newPassphraseCommand,
      passphraseFd: newPassphraseFd === undefined ? undefined : Number(newPassphraseFd),
    },
    {},
    ctx.host.cwd,
  )
  const passphrase = named === undefined ? await askTwice(ctx) : await fromSource(ctx, named)
  if (passphrase.size === 0) throw usage('the new passphrase is empty')
  if (isRecoveryText(passphrase))
    throw usage('a passphrase can not begin with rr1-: it would be taken for a recovery key')
  return passphrase
}

async function fromSource(
  ctx: Context,
  named: NonNullable<ReturnType<typeof findSource>>,
): Promise<Secret> {
  if (named.kind === 'key-file') throw new Error('not a passphrase')
  try {
    return await readPassphrase(
      { ...named, from: `--new-${named.from.slice(2)}` },
      ctx.input,
      {},
      ctx.signal,
    )
  } catch (error) {
    // The vault was opened already. What failed is a flag that names something unusable.
    if (error instanceof RotateError && error.code === 'unlock-failed')
      throw usage(error.message, error.hint)
    throw error
  }
}

async function askTwice(ctx: Context): Promise<Secret> {
  const first = await ctx.input.passphrase(
    'New passphrase (several words that you use nowhere else)',
  )
  const second = first === undefined ? undefined : await ctx.input.passphrase('The same again')
  if (first === undefined || second === undefined)
    throw usage(
      'the new passphrase is needed and there is no terminal to ask on',
      'give it with --new-passphrase-file F, --new-passphrase-command CMD or --new-passphrase-fd N',
    )
  if (!first.equals(second)) throw usage('the two passphrases differ')
  return first
}

function addRemove(group: Command, run: Run): void {
  group
    .command('remove')
    .alias('rm')
    .summary('take an unlocker away and rekey')
    .description(
      'Takes an unlocker away. The vault gets a new root key at once, and everything is ' +
        'sealed under it, while others go on reading and writing.\n' +
        'What its holder has read, copied or backed up before stays readable to him: the ' +
        'secrets are listed, so that they can be rotated.',
    )
    .argument('<id>', 'unl_…, see: rotate unlocker list')
    .action(
      run(
        async (ctx, id: string) => {
          const deps = await ctx.deps()
          const { exposedPaths, removeUnlocker, unlockerToRemove } =
            await import('../../app/vault/unlockers.ts')
          const one = await unlockerToRemove(deps, id)
          const what = `${one.id} (${one.kind})`
          if (ctx.globals.dryRun) {
            const exposed = await exposedPaths(deps)
            ctx.out.data({
              unlockers: (await (await import('../../app/vault/unlockers.ts')).listUnlockers(deps))
                .unlockers,
              exposed,
            })
            ctx.out.note(
              `dry run: would remove ${what}; its holder can read ${exposed.length} secrets`,
            )
            for (const path of exposed) ctx.out.line(path)
            return
          }
          const question = one.inUse
            ? `Remove ${what}, which opened the vault just now?`
            : `Remove ${what}?`
          await ctx.input.confirm(question, one.inUse)
          const { unlockers, exposed } = await removeUnlocker(deps, one.id)
          ctx.out.data({ unlockers, exposed })
          ctx.out.note(`removed: ${what}; everything is sealed under a new root key`)
          if (exposed.length > 0) {
            ctx.out.note(
              'its holder could read these secrets, and still can in copies and backups of ' +
                'the vault made before. Rotate them now:',
            )
            for (const path of exposed) ctx.out.line(path)
          }
        },
        { graceful: true },
      ),
    )
}

function addKeygen(group: Command, run: Run): void {
  group
    .command('keygen')
    .summary('make a key file and print its public key')
    .description(
      'Makes a key file (0600) if it is missing, and prints its public key. Whoever keeps a ' +
        'vault lets you in with that key:\n' +
        '  rotate unlocker add --kind recipient --recipient rp1-…\n' +
        'and you open the vault with --key-file F. The file itself never leaves your machine.',
    )
    .requiredOption('--key-file <file>', 'where the key file is, or is to be made')
    .action(
      run(async (ctx, options: { readonly keyFile: string }) => {
        const door = await ctx.host.vaults()
        if (ctx.globals.dryRun && !existsSync(resolve(ctx.host.cwd, options.keyFile))) {
          ctx.out.note('dry run: no key file was made')
          return
        }
        const leftovers = new Leftovers()
        try {
          const { key, path } = await keyFile(ctx, options.keyFile, leftovers)
          const recipient = await door.recipientOf(key)
          ctx.out.data({ keyFile: path, recipient })
          ctx.out.line(recipient)
        } catch (error) {
          leftovers.remove()
          throw error
        }
      }),
    )
}
