/** The line by which a person hands over a value, in the form that the value has. */
import type { SecretRecord } from './model.ts'
import { SINGLE } from './secret.ts'

/** What says where a login is, and is not asked for unless a target wants it. */
const AROUND: ReadonlySet<string> = new Set(['host', 'port', 'database', 'url'])

/**
 * `rotate now PATH -`, or, for a value of several fields, `--fields-from -` and the JSON
 * that goes to stdin: one text would replace them all, and is refused. Pure.
 *
 * @param fields names of the fields of the value that is replaced; `undefined` where none
 *   is known
 * @param flags further ones, such as `--emergency`
 */
export function giveLine(
  { path, schedule }: Pick<SecretRecord, 'path' | 'schedule'>,
  fields: readonly string[] | undefined,
  flags = '',
): string {
  const start = `rotate now ${path}${flags === '' ? '' : ` ${flags}`}`
  if (fields === undefined || fields.length === 0 || fields.includes(SINGLE)) return `${start} -`
  const wanted = new Set(schedule?.targets.flatMap(({ names }) => Object.keys(names)) ?? [])
  const asked = fields.filter(
    (field) => !fields.includes('password') || !AROUND.has(field) || wanted.has(field),
  )
  const json = JSON.stringify(Object.fromEntries(asked.map((field) => [field, '…'])))
  return `${start} --fields-from -   and on stdin: ${json}`
}
