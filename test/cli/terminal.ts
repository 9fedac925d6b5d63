/**
 * Runs the built program on a pseudo-terminal of its own, which the program `script` of
 * util-linux makes.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { program, type Sandbox } from './program.ts'

export const hasTerminal = process.platform === 'linux' && existsSync('/usr/bin/script')
if (!hasTerminal && process.env['CI'] !== undefined)
  throw new Error('the program script is missing: it makes the terminals of the tests')

export interface OnTerminal {
  /**
   * What is typed, each when its words have appeared. Keys are sent as they are, so Enter
   * is `\r`.
   */
  readonly answers?: readonly (readonly [words: string, keys: string])[]
  readonly env?: Readonly<Record<string, string | undefined>>
  /** What is run instead of `rotate`. */
  readonly command?: string
  /** Redirections behind the command, such as `2>err`. */
  readonly redirect?: string
}

export interface Session {
  readonly code: number | null
  /** Everything that the terminal showed: both streams, and what it echoed. */
  readonly seen: string
}

const quoted = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`

export function onTerminal(
  box: Sandbox,
  args: readonly string[],
  how: OnTerminal = {},
): Promise<Session> {
  const answers = [...(how.answers ?? [])]
  const env = {
    HOME: box.home,
    PATH: '/usr/bin:/bin',
    TERM: 'xterm',
    ROTATE_KEY_FILE: box.keyFile,
    ...how.env,
  }
  const child = spawn(
    '/usr/bin/script',
    [
      '-qec',
      `${[how.command ?? program, ...args].map(quoted).join(' ')} ${how.redirect ?? ''}`,
      '/dev/null',
    ],
    {
      env: Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined)),
      cwd: box.home,
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  )
  let seen = ''
  let from = 0
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    seen += text
    const [answer] = answers
    const at = answer === undefined ? -1 : seen.indexOf(answer[0], from)
    if (answer === undefined || at < 0) return
    from = at + answer[0].length
    answers.shift()
    child.stdin.write(answer[1])
  })
  // The program may end before it has read everything.
  child.stdin.on('error', () => undefined)
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, seen }))
  })
}
