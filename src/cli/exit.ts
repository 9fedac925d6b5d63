/**
 * Turns anything that was thrown into what the operator reads and the code that the
 * process ends with.
 */
import type { ChalkInstance } from 'chalk'
import { AdapterError, RotateError, type ExitName } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import { globalSpellings } from './aliases.ts'
import { clean, cleanLine } from './render/clean.ts'

/**
 * Errors after which nothing was changed. After any other error `details.now` or the
 * message says what is true now.
 */
const nothingChanged: ReadonlySet<ExitName> = new Set([
  'usage',
  'no-vault',
  'locked',
  'unlock-failed',
  'not-found',
  'denied',
  'conflict',
  'not-writable',
])

/**
 * The spelling that is one or two letters away from what was typed. The parser itself
 * guesses among a command's own options only.
 */
function closest(typed: string, spellings: readonly string[]): string | undefined {
  const near = spellings
    .map((spelling) => ({ spelling, away: distance(typed, spelling) }))
    .toSorted((a, b) => a.away - b.away)[0]
  return near !== undefined && near.away <= 2 && typed.length > 4 ? near.spelling : undefined
}

/**
 * How many letters must be inserted, deleted or replaced to make one word of the other.
 */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(
        Math.min(
          (row[j] ?? 0) + 1,
          (next[j - 1] ?? 0) + 1,
          (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1),
        ),
      )
    }
    row = next
  }
  return row[b.length] ?? 0
}

/**
 * The message of the argument parser, without what the user typed as a value: an argument
 * may be a secret.
 */
function fromParser(code: string, message: string, command: string): RotateError {
  const help = `rotate help${command === '' ? '' : ` ${command}`}`
  const flag = /unknown option '([^]*?)'(?:\n\(Did you mean (?:one of )?([^?]+)\?\))?$/.exec(
    message,
  )
  if (code === 'commander.unknownOption' && flag) {
    const name = /^--?[A-Za-z][A-Za-z-]*$/.exec((flag[1] ?? '').split('=')[0] ?? '')?.[0] ?? '-…'
    const shown = name.startsWith('--') ? name : name.slice(0, 2)
    const guess = flag[2] ?? closest(name, [...globalSpellings])
    return new RotateError(
      'usage',
      `unknown option ${shown}${command === '' ? '' : ` of "${command}"`}`,
      {
        hint:
          guess === undefined
            ? `${help}; a name or value that starts with "-" goes after --`
            : `did you mean ${guess}?`,
      },
    )
  }
  if (code === 'commander.excessArguments') {
    const counts = /Expected (\d+) arguments? but got (\d+)/.exec(message)
    return new RotateError(
      'usage',
      `too many arguments for "${command}": ${counts?.[2] ?? 'more'} instead of at most ` +
        `${counts?.[1] ?? 'those it takes'}`,
      {
        hint: help,
      },
    )
  }
  if (code === 'commander.unknownCommand') {
    const word = /unknown command '([^]*?)'/.exec(message)?.[1] ?? ''
    const guesses = /\(Did you mean (?:one of )?([^?]+)\?\)/.exec(message)?.[1]
    const group = command === '' || command === word ? '' : `"${command}" has no command`
    return new RotateError(
      'usage',
      group === '' ? `there is no command ${visible(word, 40)}` : `${group} ${visible(word, 40)}`,
      {
        hint:
          guesses === undefined
            ? group === ''
              ? 'rotate --help'
              : help
            : `did you mean ${guesses}?`,
      },
    )
  }
  const [first = '', second = ''] = message.replace(/^error: /, '').split('\n')
  const guess = /\(Did you mean (?:one of )?([^?]+)\?\)/.exec(second)?.[1]
  return new RotateError('usage', visible(first, 200), {
    hint: guess === undefined ? help : `did you mean ${guess}?`,
  })
}

function hasCode(thrown: unknown): thrown is Error & { readonly code: string } {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string'
}

/**
 * The file of ours that was to be loaded and is not there;
 * https://nodejs.org/api/errors.html#err_module_not_found
 */
function missingPart(thrown: unknown): string | undefined {
  if (
    !hasCode(thrown) ||
    thrown.code !== 'ERR_MODULE_NOT_FOUND' ||
    !('url' in thrown) ||
    typeof thrown.url !== 'string'
  )
    return undefined
  const home = new URL('.', import.meta.url).href
  return thrown.url.startsWith(home) ? thrown.url.slice(home.length) : undefined
}

/** Anything thrown, as a `RotateError`. */
export function asRotateError(thrown: unknown, command: string): RotateError {
  if (thrown instanceof RotateError) return thrown
  if (hasCode(thrown) && thrown.code.startsWith('commander.'))
    return fromParser(thrown.code, thrown.message, command)
  if (thrown instanceof AdapterError) {
    return new RotateError('failed', thrown.message, {
      cause: thrown,
      ...(thrown.hints[0] === undefined ? {} : { hint: thrown.hints[0] }),
      details: { effect: thrown.effect, adapter: thrown.code },
    })
  }
  const part = missingPart(thrown)
  if (part !== undefined)
    return new RotateError('failed', `a part of this installation is missing: ${part}`, {
      cause: thrown,
      hint:
        'install rotate again, then repeat the command; if it was updated just now, repeat it ' +
        'only',
    })
  const name = thrown instanceof Error ? thrown.name : typeof thrown
  // A syntax error quotes what was parsed, which may be a value.
  const text = thrown instanceof Error && name !== 'SyntaxError' ? `: ${thrown.message}` : ''
  return new RotateError('failed', `unexpected ${name}${text}`, {
    cause: thrown,
    hint: 'this is a bug; -v shows where it happened',
  })
}

/** The parser ends `--help` and `--version` by throwing too. */
export function isParserSuccess(thrown: unknown): boolean {
  return (
    hasCode(thrown) &&
    (thrown.code === 'commander.helpDisplayed' || thrown.code === 'commander.version')
  )
}

/** The parser printed help because a command of a group is missing. */
export function isMissingCommand(thrown: unknown): boolean {
  return hasCode(thrown) && thrown.code === 'commander.help'
}

export interface ErrorTextOptions {
  readonly verbose: number
  readonly paint: ChalkInstance | undefined
  /** `get --silent`: only the first line. */
  readonly oneLine?: boolean
}

/**
 * The error for people: what happened, what is true now and what to do next, a line each,
 * whatever characters the words of a service in it have.
 */
export function errorText(error: RotateError, options: ErrorTextOptions): string {
  const { paint } = options
  if (options.oneLine === true) {
    const hint = error.hint === undefined ? '' : `; ${error.hint}`
    return `rotate: ${cleanLine(`${error.message}${hint}`)}`
  }
  const lines = [`${paint?.red.bold('rotate:') ?? 'rotate:'} ${cleanLine(error.message)}`]
  const now = error.details['now']
  if (typeof now === 'string') lines.push(`  now: ${cleanLine(now)}`)
  else if (nothingChanged.has(error.code)) lines.push('  now: nothing was changed')
  if (error.hint !== undefined) lines.push(`  next: ${cleanLine(error.hint)}`)
  if (error.runId !== undefined) lines.push(`  run: ${cleanLine(error.runId)}`)
  if (options.verbose > 0) {
    const origin = error.code === 'failed' && error.cause instanceof Error ? error.cause : error
    lines.push(clean(origin.stack ?? ''))
  }
  return lines.join('\n')
}

/** The error document of `--json`. */
export function errorDocument(
  error: RotateError,
  exit: number,
  warnings: readonly string[],
): string {
  return JSON.stringify({
    error: {
      code: error.code,
      exit,
      message: error.message,
      hint: error.hint ?? null,
      details: warnings.length === 0 ? error.details : { ...error.details, warnings },
      runId: error.runId ?? null,
    },
  })
}
