/**
 * The command line: parses, runs one command, renders what went wrong, returns the exit
 * code.
 *
 * HOW TO ADD A COMMAND
 *
 * 1. Write `src/cli/commands/<name>.ts`:
 *
 *        import type { Register } from '../program.ts'
 *
 *        interface Options { readonly grace?: string }
 *
 *        export const rollback: Register = (parent, run) => {
 *          parent
 *            .command('rollback')
 *            .helpGroup('Rotation:')
 *            .summary('make the old value current again')
 *            .description('…, examples first')
 *            .argument('<path>', 'which secret')
 *            .option('--grace <duration>', 'how long the replaced value stays alive')
 *            .action(
 *              run(async (ctx, path: string, options: Options) => {
 *                const { rollBack } = await import('../../app/rollback.ts')   // heavy modules are imported here, not above
 *                const result = await rollBack(await ctx.deps(), { path: parsePath(path), … })
 *                ctx.out.data(toRun(result))                                  // the `data` of --json (shapes: src/contract)
 *                ctx.out.line(`${result.path} version ${result.version}`)     // for people, on stdout; nothing with --json
 *                if (result.failed) throw new RotateError('rolled-back', …)   // after `data`: report-like commands print it anyway
 *              }, { graceful: true }),
 *            )
 *        }
 *
 * 2. Add it to the list in `commands/index.ts`. A group (`schedule set`, `schedule list`
 *    …) is one `Register` that makes `const group = parent.command('schedule')` and
 *    registers on it; its name stands in `groups` of `aliases.ts`.
 *
 * The handler gets the context and what commander hands to an action (arguments in order,
 * then the options). It returns nothing or an exit code, and throws `RotateError` for
 * everything else. The global options are added to every command by this file and are
 * found in `ctx.globals`; a command that defines an option of the same name keeps its
 * own. Repeating an option with another value is refused unless the option has `collect`
 * of options.ts as its parser (a variadic `<x...>` would swallow the path behind it).
 *
 * `graceful`: a signal must not end the command at once; it watches `ctx.signal` itself
 * and stops at a safe point. `valueOutput`: a reader that leaves early is an error (74),
 * because what it got may be a cut secret.
 */
import { Command, CommanderError, Option } from 'commander'
import { exits, RotateError, usage } from '../core/errors.ts'
import { parsePath } from '../core/names.ts'
import { untilAborted } from './aborted.ts'
import { globalsWithValue, groups, rewrite } from './aliases.ts'
import { commands } from './commands/index.ts'
import { type Context, createContext, createOut } from './context.ts'
import {
  asRotateError,
  errorDocument,
  errorText,
  isMissingCommand,
  isParserSuccess,
} from './exit.ts'
import { globalOptions, type RawGlobals, settleGlobals } from './globals.ts'
import type { Host } from './host.ts'
import { collect } from './options.ts'
import { cleanLine } from './render/clean.ts'
import { Out } from './render/out.ts'

export interface RunOptions {
  readonly graceful?: boolean
  readonly valueOutput?: boolean
}

/** Turns a handler into an action of commander. */
export type Run = <A extends unknown[]>(
  handler: (context: Context, ...args: A) => Promise<number | void>,
  options?: RunOptions,
) => (...args: [...A, Command]) => Promise<void>

/** Registers one command, or one group, on its parent. */
export type Register = (parent: Command, run: Run) => void

/** What is known about the command in hand when something goes wrong. */
interface Progress {
  words: string
  out: Out
  exit: number
}

/** The options that this file added, as against a command's own of the same name. */
const ours = new WeakSet<Option>()

function eachCommand(command: Command, visit: (command: Command) => void): void {
  visit(command)
  for (const child of command.commands) eachCommand(child, visit)
}

function count(_value: string, before: number | undefined): number {
  return (before ?? 0) + 1
}

function addGlobals(command: Command, hidden: boolean): void {
  for (const spec of globalOptions) {
    const option = new Option(spec.flags, spec.description)
    if (
      command.options.some(
        (own) =>
          own.long === option.long || (own.short !== undefined && own.short === option.short),
      )
    )
      continue
    if (spec.name === 'verbose') option.argParser(count)
    // The parser would keep `--no-input` in the same place as a command's `--input`.
    if (spec.name === 'asking') option.attributeName = () => 'asking'
    if (hidden) option.hideHelp()
    ours.add(option)
    command.addOption(option)
  }
}

/** Refuses `--type a --type b`; no silent "last one wins". */
function refuseRepeats(command: Command): void {
  for (const option of command.options) {
    if (option.variadic || option.parseArg === collect || option.parseArg === count) continue
    let seen: string | undefined
    command.on(`option:${option.name()}`, (value: string | null | undefined) => {
      const text = value ?? ''
      if (seen !== undefined && seen !== text)
        throw usage(`${option.long ?? option.short ?? ''} was given twice with different values`)
      seen = text
    })
  }
}

/**
 * The global options of a command and all its parents; the same one twice with different
 * values is refused.
 */
function mergeGlobals(command: Command): RawGlobals {
  const merged: Record<string, unknown> = {}
  for (let level: Command | null = command; level !== null; level = level.parent) {
    for (const option of level.options) {
      const name = option.attributeName()
      if (!ours.has(option) || level.getOptionValueSource(name) !== 'cli') continue
      const value: unknown = level.getOptionValue(name)
      if (merged[name] !== undefined && merged[name] !== value && name !== 'verbose')
        throw usage(`${option.long ?? ''} was given twice with different values`)
      merged[name] = value
    }
  }
  return merged
}

function wordsOf(command: Command): string {
  const words: string[] = []
  for (let level: Command | null = command; level?.parent != null; level = level.parent)
    words.unshift(level.name())
  return words.join(' ')
}

/**
 * `rotate set production/db/PASSWORD`: enough to recognise the process, and never a
 * value.
 */
function commandLine(words: string, args: readonly unknown[]): string {
  const all: unknown = args[0]
  const first: unknown = Array.isArray(all) ? all[0] : all
  try {
    return typeof first === 'string' ? `rotate ${words} ${parsePath(first)}` : `rotate ${words}`
  } catch {
    return `rotate ${words}`
  }
}

function runner(host: Host, progress: Progress): Run {
  return (handler, options = {}) =>
    async (...all) => {
      const command = all.at(-1) as Command
      const args: unknown[] = all.slice(0, -1)
      progress.words = wordsOf(command)
      const globals = settleGlobals(mergeGlobals(command), host.env)
      progress.out = await createOut(globals, host.env)
      const limit = new AbortController()
      const timer =
        globals.timeoutMs === undefined
          ? undefined
          : setTimeout(
              () => limit.abort(new RotateError('failed', 'the time given by --timeout is over')),
              globals.timeoutMs,
            )
      const signal = AbortSignal.any([host.signal, limit.signal])
      const context = createContext(
        host,
        globals,
        progress.out,
        commandLine(progress.words, args),
        signal,
      )
      try {
        const work = handler(context, ...(args as never))
        const result = await (options.graceful === true
          ? work
          : Promise.race([work, untilAborted(signal)]))
        progress.exit = result ?? exits.ok
        if (options.valueOutput === true && progress.out.readerGone)
          throw new RotateError(
            'output',
            'the reader closed the pipe before everything was written',
          )
      } finally {
        clearTimeout(timer)
        context.close()
      }
    }
}

/** The whole parser, with every command registered. */
export function buildProgram(host: Host, run: Run, write: (text: string) => void): Command {
  const program = new Command('rotate')
  program
    .description('Rotates credentials end to end from one sealed local file.')
    .enablePositionalOptions()
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      writeOut: write,
      writeErr: () => undefined,
      outputError: () => undefined,
      getOutHelpWidth: () => Math.max(60, Math.min(Number(host.env['COLUMNS'] ?? '') || 100, 120)),
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    })
    .configureHelp({ showGlobalOptions: false, sortSubcommands: false })
    .option('-V', 'print the version')
    .optionsGroup('Global options (before or after the command):')
  for (const register of commands) register(program, run)
  eachCommand(program, (command) => {
    addGlobals(command, command !== program)
    refuseRepeats(command)
    if (command !== program && command.commands.length === 0)
      command.addHelpText(
        'after',
        '\nGlobal options such as --json, --vault, --key-file and --no-input: rotate --help',
      )
  })
  return program
}

/** Are these arguments a question for the version? */
function asksVersion(argv: readonly string[]): boolean {
  if (argv.length === 1 && argv[0] === '--version') return true
  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i] ?? ''
    if (arg === '-V') return true
    if (!arg.startsWith('-') || arg === '--') return false
    if (globalsWithValue.has(arg)) i++
  }
  return false
}

function plainOut(argv: readonly string[]): Out {
  const end = argv.indexOf('--')
  const json = (end < 0 ? argv : argv.slice(0, end)).includes('--json')
  return new Out({ json, quiet: false, verbose: 0, paint: { out: undefined, err: undefined } })
}

/**
 * Runs the command line and returns the exit code. Everything has been written when it
 * resolves.
 */
export async function runCli(host: Host): Promise<number> {
  const progress: Progress = { words: '', out: plainOut(host.argv), exit: exits.ok }
  try {
    await dispatch(host, progress)
  } catch (thrown) {
    if (!isParserSuccess(thrown)) report(thrown, host, progress)
  }
  const { out } = progress
  for (const warning of out.takeWarnings()) out.error(cleanLine(`warning: ${warning}`))
  if (
    out.failure !== undefined &&
    (progress.exit === exits.ok || progress.exit === exits.differences)
  ) {
    report(
      new RotateError('output', `writing to stdout failed (${out.failure})`, {
        details: { now: 'what the command did is done; only its output is incomplete' },
      }),
      host,
      progress,
    )
  }
  return progress.exit
}

async function dispatch(host: Host, progress: Progress): Promise<void> {
  const bad = host.argv.find((arg) => arg.includes('\ufffd') || arg.includes('\0'))
  if (bad !== undefined)
    throw usage(
      'an argument is not valid UTF-8',
      'values that are not text come from stdin or --value-file',
    )
  if (asksVersion(host.argv)) {
    progress.out.raw(`${host.version}\n`)
    return
  }
  const argv = rewrite(host.argv, host.env)
  progress.words = argv.find((arg) => !arg.startsWith('-')) ?? ''
  const program = buildProgram(host, runner(host, progress), (text) => progress.out.raw(text))
  if (argv.length === 0) {
    progress.out.raw(program.helpInformation())
    return
  }
  try {
    await program.parseAsync([...argv], { from: 'user' })
  } catch (thrown) {
    if (!(thrown instanceof CommanderError) || !isMissingCommand(thrown)) throw thrown
    const group = groups.has(progress.words) ? progress.words : ''
    throw usage(
      group === '' ? 'no command was given' : `"${group}" needs one of its commands`,
      `rotate help${group === '' ? '' : ` ${group}`}`,
    )
  }
}

function isSilent(argv: readonly string[]): boolean {
  return argv.includes('--silent') || argv.some((arg) => /^-[sn]*s[sn]*$/.test(arg))
}

/** Writes the error and settles the exit code. */
function report(thrown: unknown, host: Host, progress: Progress): void {
  const { out } = progress
  const error = asRotateError(thrown, progress.words)
  progress.exit = error.code === 'interrupted' ? (host.interruptedBy() ?? error.exit) : error.exit
  if (progress.exit === exits.differences && out.json) return
  if (out.json) out.error(errorDocument(error, progress.exit, out.takeWarnings()))
  else
    out.error(
      errorText(error, {
        verbose: out.verbose,
        paint: out.paintErr,
        oneLine: progress.words === 'get' && isSilent(host.argv),
      }),
    )
}
