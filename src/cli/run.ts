/**
 * Runs one command line: rewrites other spellings, parses, runs the command with its
 * context, renders what went wrong, and returns the exit code.
 */
import { type Command, CommanderError } from 'commander'
import { exits, RotateError, usage } from '../core/errors.ts'
import { parsePath } from '../core/names.ts'
import { untilAborted } from './aborted.ts'
import { globalsWithValue, groups, rewrite } from './aliases.ts'
import type { Run } from './command.ts'
import { createContext, createOut } from './context.ts'
import {
  asRotateError,
  errorDocument,
  errorText,
  isMissingCommand,
  isParserSuccess,
} from './exit.ts'
import { settleGlobals } from './globals.ts'
import type { Host } from './host.ts'
import { buildProgram, mergeGlobals } from './program.ts'
import { cleanLine } from './render/clean.ts'
import { Out } from './render/out.ts'

/** What is known about the command in hand when something goes wrong. */
interface Progress {
  words: string
  out: Out
  exit: number
}

function wordsOf(command: Command): string {
  const words: string[] = []
  for (let level: Command | null = command; level?.parent != null; level = level.parent)
    words.unshift(level.name())
  return words.join(' ')
}

/**
 * The command line as other processes are told it: `rotate set production/db/PASSWORD`.
 * It is enough to recognise the process by, and never has a value.
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

/** Do these arguments ask for the version? */
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

/** Writes the error and sets the exit code. */
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
