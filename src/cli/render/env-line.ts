/**
 * Writes `NAME='value'` in a spelling that both a POSIX shell and dotenv readers read
 * back byte for byte, or refuses.
 */
import { usage } from '../../core/errors.ts'
import { visible } from '../../core/names.ts'
import type { Secret } from '../../core/secret.ts'

export function envLine(name: string, value: Secret): string {
  const shown = visible(name, 60)
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    throw usage(`"${shown}" can't be the name of a variable`, 'use --format raw')
  const refuse = (why: string): Error =>
    usage(`the value for ${shown} ${why}, which env lines can't hold`, 'use --format raw or --json')
  if (!value.isText()) throw refuse('is not text')
  const text = value.reveal()
  if (text.includes('\0')) throw refuse('has a NUL')
  if (text.includes('\r')) throw refuse('has a carriage return')
  if (!text.includes("'")) return `${name}='${text}'`
  // Inside double quotes a shell expands $ and `, dotenv readers expand \n: none of them
  // may occur.
  if (/["$`\\\n!]/.test(text))
    throw refuse('mixes single quotes with characters that double quotes would change')
  return `${name}="${text}"`
}
