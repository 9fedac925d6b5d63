/**
 * Real pipes for the standard streams of a child process, on Linux.
 *
 * Node connects children by sockets. On Linux a socket can't be opened by its name, so
 * `cat /dev/stdin` and `echo … >/dev/stderr`, which are common in scripts, fail with
 * ENXIO. And `bash -c` with a socket on stdin assumes that it is a remote shell and runs
 * `~/.bashrc`.
 *
 * The output of the child goes through named pipes, whose names exist, in a private
 * directory, only until both ends are open. Its stdin can't be a named pipe: opening one
 * again waits for a writer, and ours is gone once the value is written. So `cat` passes
 * the value on through a pipe that the shell makes. The shell gets a fixed text, and
 * takes program and arguments as they are.
 */
import { execFile } from 'node:child_process'
import { closeSync, constants, existsSync, openSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { promisify } from 'node:util'

export interface Outputs {
  /** The ends for the child: its stdout and stderr. */
  readonly child: readonly [number, number]
  readonly stdout: Readable
  readonly stderr: Readable
  /**
   * Closes our copies of the ends of the child. Must be called once, right after the
   * start of the child.
   */
  release(): void
}

const SHELL = '/bin/sh'
const linux = process.platform === 'linux'
const mkfifo = find('mkfifo')
const cat = find('cat')

function find(tool: string): string | undefined {
  return linux ? [`/usr/bin/${tool}`, `/bin/${tool}`].find((path) => existsSync(path)) : undefined
}

/**
 * The command line that starts `argv` with its input in a real pipe. The shell ignores
 * SIGTERM, so it still waits for the program when the process group is asked to end.
 */
export function withRealStdin(
  argv: readonly [string, ...string[]],
): readonly [string, ...string[]] {
  return cat === undefined || !existsSync(SHELL)
    ? argv
    : [SHELL, '-c', 'trap : TERM; "$0" | "$@"', cat, ...argv]
}

/**
 * Opens pipes for the output; `undefined` where they can't be made or are not needed, and
 * then Node's sockets are used.
 */
export async function openOutputs(): Promise<Outputs | undefined> {
  if (mkfifo === undefined) return undefined
  const opened: number[] = []
  let dir: string | undefined
  try {
    dir = await mkdtemp(join(tmpdir(), 'rotate-'))
    const [output, errors] = [join(dir, '1'), join(dir, '2')] as const
    await promisify(execFile)(mkfifo, ['-m', '600', output, errors], { env: {} })
    const open = (path: string): [number, number] => {
      // A non-blocking end can be opened for reading before there is a writer. After
      // that, opening the end for writing does not wait either.
      opened.push(
        openSync(path, constants.O_RDONLY | constants.O_NONBLOCK),
        openSync(path, constants.O_WRONLY),
      )
      return opened.slice(-2) as [number, number]
    }
    const [fromOut, childOut] = open(output)
    const [fromErr, childErr] = open(errors)
    return {
      child: [childOut, childErr],
      stdout: new Socket({ fd: fromOut, readable: true, writable: false }),
      stderr: new Socket({ fd: fromErr, readable: true, writable: false }),
      release: () => {
        closeSync(childOut)
        closeSync(childErr)
      },
    }
  } catch {
    for (const fd of opened) closeSync(fd)
    return undefined
  } finally {
    if (dir !== undefined) await rm(dir, { recursive: true, force: true }).catch(() => undefined)
  }
}
