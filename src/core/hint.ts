/** How a value is named without being shown (CONTRACT 3). */
import type { SecretType } from './model.ts'
import { type Fields, flatten, singleValue } from './secret.ts'

/** The shown part of a fingerprint: `fp:9c41e07b`. */
export function shortFingerprint(fingerprint: string): string {
  return `fp:${fingerprint.slice(0, 8)}`
}

/**
 * Prefix up to the first separator and the last four characters (`sk-…x7K2`), only for
 * values of 20 characters or more and never for passwords; otherwise the fingerprint. A
 * public identifier among the fields (an access key id) is what names a multi-field
 * secret.
 */
export function hintOf(type: SecretType, fields: Fields, fingerprint: string): string {
  const only =
    singleValue(fields) ??
    fields['accessKeyId'] ??
    (type === 'database_password' ? undefined : fields['value'])
  if (only === undefined || type === 'database_password' || !only.isText())
    return shortFingerprint(fingerprint)
  const text = only.reveal()
  if (text.length < 20 || !/^[\x21-\x7e]+$/.test(text)) return shortFingerprint(fingerprint)
  // Vendors write theirs in lower case. A random value may look so too, once in a
  // hundred, and shows a few characters more.
  const prefix = /^[a-z]{2,6}[-_]/.exec(text)?.[0] ?? (text.startsWith('AKIA') ? 'AKIA' : '')
  return `${prefix}…${text.slice(-4)}`
}

/** Length in bytes of what a version holds, for limits. */
export function sizeOf(fields: Fields): number {
  return flatten(fields).size
}
