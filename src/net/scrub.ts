/**
 * Removes a value from a text that a program or service wrote, in all spellings in which
 * values usually come back.
 */
import type { Secret } from '../core/secret.ts'

const MASK = '[secret]'
/**
 * The shortest spelling that is masked. Shorter ones occur in ordinary text by chance;
 * masking them would destroy the text and hide nothing.
 */
const SHORTEST = 4

/**
 * The text without the values: plain, line by line, in base64, base64url and hexadecimal,
 * URL-escaped and JSON-escaped.
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
 * The texts inside a value that is a JSON object (several fields are sent in this form):
 * each of them is a secret too.
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
