/**
 * Strict reading of JSON that a person wrote. A fault is reported with its place, and the
 * text itself is never quoted, because it may hold a secret.
 */
import { usage } from './errors.ts'
import { visible } from './names.ts'

const MAX_DEPTH = 32

/**
 * Parses JSON. Throws `usage` for a syntax error or a key that occurs twice (with line
 * and column where they are known), for a byte order mark, and for nesting deeper than
 * 32.
 * @param what for the message, such as `--config`
 */
function parseJson(text: string, what: string): unknown {
  if (text.startsWith('\uFEFF'))
    throw usage(
      `${what}: the JSON begins with a byte order mark`,
      'save it as UTF-8 without a mark',
    )
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    const at = /position (\d+)/.exec(error instanceof Error ? error.message : '')?.[1]
    throw usage(
      `${what}: not valid JSON${at === undefined ? '' : ` (${place(text, Number(at))})`}`,
      'comments, trailing commas and NaN are not JSON',
    )
  }
  const fault = findJsonFault(text, MAX_DEPTH)
  if (fault === 'too deep') throw usage(`${what}: nested deeper than ${MAX_DEPTH}`)
  if (fault !== undefined)
    throw usage(
      `${what}: the key "${visible(fault.twice, 40)}" occurs twice (${place(text, fault.at)})`,
    )
  return value
}

/** As `parseJson`, for text that must be an object. */
export function parseJsonObject(text: string, what: string): Record<string, unknown> {
  const value = parseJson(text, what)
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw usage(`${what}: must be a JSON object`)
  return value as Record<string, unknown>
}

function place(text: string, position: number): string {
  const before = text.slice(0, position).split('\n')
  return `line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1}`
}

/**
 * Looks through a text that is known to be JSON. Finds the first key that occurs twice in
 * one object, or the first place that is nested deeper than `maxDepth`; `undefined` where
 * there is neither.
 */
export function findJsonFault(
  text: string,
  maxDepth = Number.POSITIVE_INFINITY,
): { readonly twice: string; readonly at: number } | 'too deep' | undefined {
  const open: (Set<string> | undefined)[] = []
  for (const match of text.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?|[{}[\]]/g)) {
    const [token, colon] = match
    if (token === '{') open.push(new Set())
    else if (token === '[') open.push(undefined)
    else if (token === '}' || token === ']') open.pop()
    else if (colon !== undefined) {
      const keys = open.at(-1)
      const key = JSON.parse(token.slice(0, token.length - colon.length)) as string
      if (keys?.has(key) === true) return { twice: key, at: match.index }
      keys?.add(key)
    }
    if (open.length > maxDepth) return 'too deep'
  }
  return undefined
}
