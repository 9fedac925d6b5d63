/**
 * Real pipes for a child's standard streams, on Linux.
 *
 * Node connects children by sockets. There a socket can't be opened again by its name, so
 * that `cat /dev/stdin` and `echo … >/dev/stderr`, which are common in scripts, fail with
 * ENXIO; and `bash -c`, seeing a socket on stdin, takes itself for a remote shell and
 * runs `~/.bashrc`.
 *
 * What the child writes goes through named pipes; their names exist, in a private
 * directory, only until both ends are open. Its stdin can't be one: opening a named pipe
 * again waits for a writer, and ours is gone once the value is written. So `cat` hands
 * the value on through a pipe that the shell makes. The shell sees a fixed text and takes
 * program and arguments as they are.
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
  /** For the child: its stdout and stderr. */
  readonly child: readonly [number, number]
  readonly stdout: Readable
  readonly stderr: Readable
  /** Closes our copies of the child's ends; once, right after it was started. */
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
 * The command line that gives this one its input through a real pipe. It waits for the
 * program also when the group is asked to end.
 */
export function withRealStdin(
  argv: readonly [string, ...string[]],
): readonly [string, ...string[]] {
  return cat === undefined || !existsSync(SHELL)
    ? argv
    : [SHELL, '-c', 'trap : TERM; "$0" | "$@"', cat, ...argv]
}

/**
 * `undefined` where they can't be made or aren't needed; the sockets of Node serve then.
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
      // An end that does not block can be opened for reading before there is a writer;
      // after that the writer does not wait either.
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
