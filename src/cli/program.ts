/**
 * The parser of the command line: every command with its own options, and the global
 * options on each. What a command is stands in command.ts, how one is run in run.ts.
 */
import { Command, Option } from 'commander'
import { usage } from '../core/errors.ts'
import { commands } from './commands/index.ts'
import type { Run } from './command.ts'
import { globalOptions, type RawGlobals } from './globals.ts'
import type { Host } from './host.ts'
import { collect } from './options.ts'

/** The options that were added here, in contrast to a command's own of the same name. */
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

/** Refuses `--type a --type b`, where otherwise the last one would win silently. */
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
export function mergeGlobals(command: Command): RawGlobals {
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
