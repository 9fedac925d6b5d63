/**
 * Has a copy of the vault verified by a process of its own, because what one process
 * believes to have written may not be what the disk holds.
 */
import { spawn } from 'node:child_process'
import { RotateError } from '../../core/errors.ts'
import type { ProveCopy, VaultReport } from '../../core/ports.ts'

/** The hidden command that `self` is started with. */
const VERIFY_COPY = ['vault', 'verify-copy'] as const

const MOST = 1024 * 1024

/** Verifies by starting this very program; the root key goes through a pipe. */
export function proverOf(
  self: readonly [string, ...string[]] | undefined,
  signal: AbortSignal,
): ProveCopy {
  return async (file, key) => {
    if (self === undefined) throw new Error('this program does not know how to start itself')
    const [program, ...args] = self
    // No variable of ours: the child needs none, and some would change how it runs.
    const child = spawn(program, [...args, ...VERIFY_COPY, file, '--json', '--no-input'], {
      env: {},
      stdio: ['pipe', 'pipe', 'pipe'],
      signal,
    })
    const out: Buffer[] = []
    const err: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => void out.push(chunk))
    child.stderr.on(
      'data',
      (chunk: Buffer) => void (Buffer.concat(err).length < MOST && err.push(chunk)),
    )
    child.stdin.on('error', () => undefined)
    child.stdin.end(`${key.reveal()}\n`)
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject)
      child.once('close', resolve)
    })
    if (code === 0)
      return (JSON.parse(Buffer.concat(out).toString()) as { readonly data: VaultReport }).data
    const said = Buffer.concat(err).toString().trim().split('\n').at(-1)?.slice(0, 300) ?? ''
    if (code === 24)
      return {
        ok: false,
        problems: [messageOf(said)],
        commit: 0,
        objects: 0,
        versions: 0,
        auditRows: 0,
      }
    throw new RotateError(
      'failed',
      'the copy could not be verified: the process that was to do it ended with ' +
        `${code ?? 'a signal'} (${messageOf(said)}); it was thrown away`,
    )
  }
}

function messageOf(line: string): string {
  try {
    return (JSON.parse(line) as { readonly error: { readonly message: string } }).error.message
  } catch {
    return line
  }
}
