/** Reading JSON that somebody else wrote. */

/**
 * The object in a JSON text; `undefined` if the text is not JSON, not an object, or names
 * a key twice. Of a key that occurs twice every reader takes another one, so such an
 * answer has no meaning that could be relied on.
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
    hasDuplicateKey(text)
  )
    return undefined
  return parsed as Record<string, unknown>
}

/** For text that is known to be JSON: does any object in it name a key twice? */
function hasDuplicateKey(text: string): boolean {
  const open: (Set<string> | undefined)[] = []
  for (const match of text.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?|[{}[\]]/g)) {
    const [token, colon] = match
    if (token === '{') open.push(new Set())
    else if (token === '[') open.push(undefined)
    else if (token === '}' || token === ']') open.pop()
    else if (colon !== undefined) {
      const keys = open.at(-1)
      const key = JSON.parse(token.slice(0, token.length - colon.length)) as string
      if (keys?.has(key) === true) return true
      keys?.add(key)
    }
  }
  return false
}
