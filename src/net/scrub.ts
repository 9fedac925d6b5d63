/**
 * Takes a value out of text that a program or service wrote, in the spellings in which
 * values come back.
 */
import type { Secret } from '../core/secret.ts'

const MASK = '[secret]'
/**
 * Shorter values occur in ordinary text by chance; masking them would destroy the text
 * and hide nothing.
 */
const SHORTEST = 4

/**
 * Text without the value: plain, line by line, base64, base64url, hex, URL-escaped,
 * JSON-escaped.
 */
export function scrub(text: string, values: readonly Secret[]): string {
  const spellings = new Set(
    values.flatMap(spellingsOf).filter((spelling) => spelling.length >= SHORTEST),
  )
  let clean = text
  for (const spelling of [...spellings].toSorted((a, b) => b.length - a.length))
    clean = clean.replaceAll(spelling, MASK)
  return clean
}

function spellingsOf(value: Secret): string[] {
  const bytes = Buffer.from(value.bytes())
  const plain = value.reveal()
  const base64 = bytes.toString('base64').replace(/=+$/, '')
  const hex = bytes.toString('hex')
  const json = JSON.stringify(plain).slice(1, -1)
  const url = new URLSearchParams({ v: plain }).toString().slice(2)
  return [
    plain,
    plain.trim(),
    ...plain.split(/\r?\n/),
    base64,
    base64.replaceAll('+', '-').replaceAll('/', '_'),
    hex,
    hex.toUpperCase(),
    json,
    url,
    url.replaceAll('+', '%20'),
    encodeURIComponent(plain.toWellFormed()),
    ...(json === plain ? [] : jsonStrings(plain)),
  ]
}

/**
 * The parts of a value that is itself JSON (several fields go out so): each of them is a
 * secret too.
 */
function jsonStrings(text: string): string[] {
  if (!text.startsWith('{')) return []
  try {
    const parsed: unknown = JSON.parse(text)
    return Object.values(parsed as Record<string, unknown>).filter(
      (item): item is string => typeof item === 'string',
    )
  } catch {
    return []
  }
}
