/** Reads JSON that another program wrote. */
import { findJsonFault } from '../core/json.ts'

/**
 * The object in a JSON text; `undefined` if the text is not JSON, not an object, or
 * contains a key twice. Readers disagree about a key that occurs twice, so such an answer
 * has no reliable meaning.
 */
export function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  let parsed: unknown
  try {
    parsed = JSON.parse(text.replace(/^\uFEFF/, ''))
  } catch {
    return undefined
  }
  if (
    parsed === null ||
    typeof parsed !== 'object' ||
    Array.isArray(parsed) ||
    findJsonFault(text) !== undefined
  )
    return undefined
  return parsed as Record<string, unknown>
}
