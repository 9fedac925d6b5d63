/** How a value is named on screens and in records without being shown. */
import type { SecretType } from './model.ts'
import { type Fields, singleValue } from './secret.ts'

/** The part of a fingerprint that is shown: `fp:9c41e07b`. */
function shortFingerprint(fingerprint: string): string {
  return `fp:${fingerprint.slice(0, 8)}`
}

/**
 * Names a value by its known prefix and its last four characters (`sk-…x7K2`). A
 * password, a value shorter than 20 characters and a value that is not printable ASCII
 * are named by their fingerprint instead. A secret with several fields is named by its
 * access key id, if it has one.
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
  // The prefix of a vendor is lower case. About one random value in a hundred happens to
  // look like that too, and then shows a few characters more.
  const prefix = /^[a-z]{2,6}[-_]/.exec(text)?.[0] ?? (text.startsWith('AKIA') ? 'AKIA' : '')
  return `${prefix}…${text.slice(-4)}`
}
