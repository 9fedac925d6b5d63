/**
 * A relay between us and a server: it hands everything on and keeps what we say, or
 * closes the connection before or after the server had it.
 */
import { type AddressInfo, connect, createServer } from 'node:net'

/**
 * `hold`: our connection is closed, and what we said waits for `release`. `orphan`: the
 * server gets it, and our connection is closed at once.
 */
export type Verdict = 'pass' | 'cut' | 'lose answer' | 'hold' | 'orphan'

export interface Between {
  readonly port: number
  said(): string
  /**
   * Lets what was held back reach the server, if it still listens. Resolves when the
   * server has answered or closed the connection.
   */
  release(): Promise<void>
  close(): Promise<void>
}

export async function between(
  far: number,
  judge: (part: Buffer) => Verdict = () => 'pass',
): Promise<Between> {
  let said = ''
  const held: (() => Promise<void>)[] = []
  const proxy = createServer((client) => {
    const server = connect(far, '127.0.0.1')
    let deaf = false
    client.on('error', () => undefined)
    server.on('error', () => undefined)
    let kept = false
    client.on('close', () => kept || server.destroy())
    server.on('close', () => client.destroy())
    client.on('data', (part: Buffer) => {
      said += part.toString()
      const verdict = judge(part)
      if (verdict === 'cut') return client.destroy()
      if (verdict === 'hold' || verdict === 'orphan') {
        kept = true
        if (verdict === 'orphan') server.write(part)
        else
          held.push(
            () =>
              new Promise((resolve) => {
                if (server.destroyed) return resolve()
                server.once('data', () => resolve()).once('close', () => resolve())
                server.write(part)
              }),
          )
        return client.destroy()
      }
      deaf ||= verdict === 'lose answer'
      return server.write(part)
    })
    server.on('data', (part) => (deaf || kept ? client.destroy() : client.write(part)))
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  const { port } = proxy.address() as AddressInfo
  return {
    port,
    said: () => said,
    release: async () => {
      for (const each of held.splice(0)) await each()
    },
    close: () => new Promise<void>((resolve) => proxy.close(() => resolve())),
  }
}
