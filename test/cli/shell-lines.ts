/**
 * Shell lines as help and README print them, and a shell that runs them in a home of its
 * own.
 */
import { spawn } from 'node:child_process'
import { mkdirSync, symlinkSync } from 'node:fs'
import { program, type Sandbox } from './program.ts'

/**
 * What a line of help begins with when it is meant to be typed; everything else that is
 * indented is a text or a table.
 */
const COMMAND = /^ {2}(?=(?:rotate|unset|printf|mv|source|\.\/\S+|\*\/15|credential_process) )/

/**
 * The lines of a help text that are meant to be typed, each with the lines that continue
 * it behind a backslash, without the margin.
 */
export function shellLines(text: string): readonly string[] {
  const lines: string[] = []
  let open = false
  for (const line of text.split('\n')) {
    if (open) lines[lines.length - 1] += `\n${line}`
    else if (COMMAND.test(line)) lines.push(line.slice(2))
    else continue
    open = line.endsWith('\\')
  }
  return lines
}

/** The line without the comment that explains it. */
export const uncommented = (line: string): string => line.replace(/\s+#\s.*$/, '')

/**
 * The part of a line that a shell can run: without the times of a crontab, and without
 * the key of an AWS profile.
 */
export const uncron = (line: string): string =>
  line.replace(/^\*\/15 \* \* \* \* +|^credential_process = /, '')

/** The path on which a shell finds `rotate` by its name. */
export function pathOf(box: Sandbox): string {
  const bin = box.path('bin')
  if (mkdirSync(bin, { recursive: true }) !== undefined) symlinkSync(program, `${bin}/rotate`)
  return `${bin}:/usr/bin:/bin`
}

export interface Ran {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/**
 * Runs a script by a shell that finds `rotate` by its name and knows nothing but its
 * home.
 */
export function inShell(
  box: Sandbox,
  script: string,
  how: {
    readonly shell?: string
    readonly cwd?: string
    readonly env?: Readonly<Record<string, string>>
    readonly input?: string
  } = {},
): Promise<Ran> {
  const child = spawn(how.shell ?? '/bin/sh', ['-ec', script], {
    cwd: how.cwd ?? box.home,
    env: { HOME: box.home, PATH: pathOf(box), ...how.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  child.stdin.on('error', () => undefined)
  child.stdin.end(how.input ?? '')
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, stdout, stderr }))
  })
}
