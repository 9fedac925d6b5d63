/** Parsers of options that several commands have. */
import { Option } from 'commander'
import { DAY, parseDuration, parseInstant } from '../core/duration.ts'
import { usage } from '../core/errors.ts'
import { secretTypes, tiers } from '../core/model.ts'
import { visible } from '../core/names.ts'

/** The parser of options that may be repeated: `.option('--tag <tag>', '…', collect)`. */
export function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value]
}

export function typeOption(): Option {
  return new Option('--type <type>', 'what kind of credential it is').choices(secretTypes)
}

export function tierOption(): Option {
  return new Option('--tier <tier>', 'how closely it is guarded').choices(tiers)
}

/**
 * `k=v` texts as a record. Metadata is shown and exported, so it can't hold control
 * characters.
 */
export function parsePairs(
  pairs: readonly string[] | undefined,
  flag: string,
): Readonly<Record<string, string>> {
  const found = new Map<string, string>()
  for (const pair of pairs ?? []) {
    const at = pair.indexOf('=')
    const key = at < 0 ? pair : pair.slice(0, at)
    const value = at < 0 ? '' : pair.slice(at + 1)
    if (at < 0 || !/^[A-Za-z][A-Za-z0-9_.-]{0,63}$/.test(key))
      throw usage(`${flag} must look like key=value`)
    if (value.length > 1000 || /[\0-\x1f\x7f]/.test(value))
      throw usage(`${flag} ${key}: at most 1000 characters and no control characters`)
    if (found.has(key) && found.get(key) !== value)
      throw usage(`${flag} ${key} was given twice with different values`)
    found.set(key, value)
  }
  return Object.fromEntries(found)
}

export function parseTags(tags: readonly string[] | undefined): readonly string[] {
  for (const tag of tags ?? []) {
    if (!/^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$/.test(tag))
      throw usage(`--tag: "${visible(tag, 70)}" is not a tag`, 'letters, digits and _ . : -')
  }
  return tags ?? []
}

/** A whole number in a range. */
export function parseCount(text: string, flag: string, least: number, most: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= least && value <= most))
    throw usage(`${flag} must be a whole number from ${least} to ${most}`)
  return value
}

/** A date, or a duration that counts back from now: `2026-11-01`, `7d`. */
export function parseSince(text: string, flag: string, now: number): number {
  return /^\d{4}-/.test(text) ? parseInstant(text, flag) : now - parseDuration(text, flag)
}

/**
 * As `parseSince`, but the last instant of a plain date, so that `--until 2026-11-30`
 * includes that day.
 */
export function parseUntil(text: string, flag: string, now: number): number {
  const at = parseSince(text, flag, now)
  return /^\d{4}-\d{2}-\d{2}$/.test(text) ? at + DAY - 1 : at
}
