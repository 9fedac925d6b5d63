/**
 * A real server of Debian's, on loopback and as the user of its package: what starting
 * one has in common, whichever it is.
 */
import { execFileSync } from 'node:child_process'
import { chownSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

/**
 * Such servers refuse to run as root; there they run as the user that their package made.
 * Without root everything is the caller's own.
 */
export function ownerOf(user: string): {
  /** Program and arguments that run it as that user. */
  readonly run: (program: string, args: readonly string[]) => [string, string[]]
  readonly give: (path: string) => void
} {
  if (process.getuid?.() !== 0)
    return { run: (program, args) => [program, [...args]], give: () => undefined }
  const id = (flag: string): number =>
    Number(execFileSync('id', [flag, user], { encoding: 'utf8' }))
  return {
    run: (program, args) => [
      'setpriv',
      [`--reuid=${user}`, `--regid=${user}`, '--clear-groups', '--', program, ...args],
    ],
    give: (path) => chownSync(path, id('-u'), id('-g')),
  }
}
