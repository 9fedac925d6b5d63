/**
 * Starts a worker that answers what its own `get` sees, as another user or where nothing
 * may be written.
 */
import { spawn } from 'node:child_process'
import type { Seen } from './vaults.ts'

type Answer = Seen | { readonly code: string; readonly message: string }

export interface Server {
  ask(file: string): Promise<Answer>
  stop(): void
}

/** Starts `argv`, which must be the worker with its job `serve`. */
export async function serve(
  argv: readonly string[],
  options: { readonly uid?: number; readonly temp: string },
): Promise<Server> {
  const [program = '', ...args] = argv
  const user = options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }
  const env = { PATH: process.env['PATH'] ?? '', TMPDIR: options.temp }
  const child = spawn(program, args, { ...user, stdio: ['pipe', 'pipe', 'inherit'], env })
  const lines: string[] = []
  let rest = ''
  let notify = (): void => undefined
  child.stdout.on('data', (data: Buffer) => {
    const parts = (rest + data.toString()).split('\n')
    rest = parts.pop() ?? ''
    lines.push(...parts)
    notify()
  })
  let ended = false
  child.once('close', () => {
    ended = true
    notify()
  })
  const line = async (): Promise<string> => {
    for (;;) {
      const next = lines.shift()
      if (next !== undefined) return next
      if (ended) throw new Error('the serving process is gone')
      await new Promise<void>((resolve) => {
        notify = resolve
      })
    }
  }
  if ((await line()) !== 'ready') throw new Error('the serving process does not serve')
  return {
    ask: async (file) => {
      child.stdin.write(`${file}\n`)
      return JSON.parse(await line()) as Answer
    },
    stop: () => void child.kill('SIGKILL'),
  }
}
