/**
 * Edits the members of a JSON object in its text, so that everything else stays as it is
 * written: order, spaces, digits of numbers, escapes. The text must be JSON without
 * duplicate keys (`parseObject` checks that).
 */

interface Member {
  readonly key: string
  /** From the quote before the key to the end of the value. */
  readonly from: number
  /** The position behind the quote after the key. */
  readonly named: number
  readonly start: number
  readonly end: number
}

function membersOf(text: string): readonly Member[] {
  const members: Member[] = []
  let depth = 0
  let key: RegExpExecArray | undefined
  let colon = -1
  const close = (at: number): void => {
    if (key === undefined || colon < 0) return
    const raw = text.slice(colon, at)
    const start = colon + raw.length - raw.trimStart().length
    const name = JSON.parse(key[0]) as string
    members.push({
      key: name,
      from: key.index,
      named: key.index + key[0].length,
      start,
      end: start + raw.trim().length,
    })
    key = undefined
    colon = -1
  }
  for (const match of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]/g)) {
    const [token] = match
    if (token === '{' || token === '[') depth++
    else if (token === '}' || token === ']') {
      depth--
      if (depth === 0) close(match.index)
    } else if (depth !== 1) continue
    else if (token === ',') close(match.index)
    else if (token === ':') colon = match.index + 1
    else if (colon < 0) key = match
  }
  return members
}

/**
 * The value of a member as it is written; `undefined` where there is no member of this
 * name.
 */
export function writtenAs(text: string, key: string): string | undefined {
  const found = membersOf(text).find((member) => member.key === key)
  return found && text.slice(found.start, found.end)
}

/**
 * Sets a member. A new member comes last, in the style of the one before it.
 * @param raw the value, as JSON
 */
export function withMember(text: string, key: string, raw: string): string {
  const members = membersOf(text)
  const found = members.find((member) => member.key === key)
  if (found !== undefined) return text.slice(0, found.start) + raw + text.slice(found.end)
  const [last, before] = [members.at(-1), members.at(-2)]
  const open = text.indexOf('{') + 1
  if (last === undefined)
    return `${text.slice(0, open)}${JSON.stringify(key)}:${raw}${text.slice(open)}`
  const gap =
    before === undefined ? `,${text.slice(open, last.from)}` : text.slice(before.end, last.from)
  const member = `${JSON.stringify(key)}${text.slice(last.named, last.start)}${raw}`
  return `${text.slice(0, last.end)}${gap}${member}${text.slice(last.end)}`
}

export function withoutMember(text: string, key: string): string {
  const members = membersOf(text)
  const at = members.findIndex((member) => member.key === key)
  const [before, found, next] = [members[at - 1], members[at], members[at + 1]]
  if (found === undefined) return text
  if (before !== undefined) return text.slice(0, before.end) + text.slice(found.end)
  return text.slice(0, found.from) + text.slice(next === undefined ? found.end : next.from)
}
