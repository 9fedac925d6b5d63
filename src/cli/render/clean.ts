/**
 * Makes text safe for a terminal, so that text from the vault or from outside can't move
 * the cursor, change the title or hide letters.
 */

// C0 (but not tab and line feed), DEL, C1, soft hyphen, zero-width and bidirectional
// marks, line and paragraph separators, byte order mark, tag characters, lone surrogates.
const UNSAFE =
  /[\0-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|\p{Surrogate}/gu

/** The text with every unsafe character written as `\u{…}`. */
export function clean(text: string): string {
  return text.replace(UNSAFE, (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`)
}

/** `clean`, for one line: tabs and line feeds become visible too. */
export function cleanLine(text: string): string {
  return clean(text).replace(/[\t\n]/g, (char) => (char === '\t' ? '\\t' : '\\n'))
}

/** Would a terminal do anything else than show this text? */
export function isUnsafe(text: string): boolean {
  return text.search(UNSAFE) >= 0
}
