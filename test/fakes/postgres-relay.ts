/**
 * What may stand between a client and PostgreSQL: a wire that breaks or delays, or a
 * pooler that gives its clients numbers of its own.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export interface Relay {
  readonly port: number
  /**
   * What contains this text next is kept back, and everything after it on that
   * connection.
   */
  hold(text: string): void
  /**
   * What contains this text next is sent on; its answer is lost, and the client is cut
   * off then.
   */
  lose(text: string): void
  /** Resolves when something is kept back. */
  readonly held: Promise<void>
  /** Sends what was kept back, late. Resolves when the server has closed or answered. */
  release(): Promise<void>
  /**
   * A pooler that does not know this role, as PgBouncer says it of one that has no
   * password.
   */
  forget(role: string): void
  /** Cuts the clients off; the server does not learn of it. */
  cut(): void
  stop(): void
}

/**
 * @param pooler clients are told another process number than that of the session that
 *   serves them
 */
export async function startRelay(target: number, { pooler = false } = {}): Promise<Relay> {
  const sockets = new Set<Socket>()
  const kept: { readonly up: Socket; readonly bytes: Buffer }[] = []
  let wanted: string | undefined
  let doomed: string | undefined
  let forgotten: string | undefined
  let cut = false
  const clients = new Set<Socket>()
  let tell: () => void = () => undefined
  const held = new Promise<void>((resolve) => (tell = resolve))
  const server = createServer((down) => {
    const up = connect(target, '127.0.0.1')
    let holding = false
    let losing = false
    clients.add(down)
    for (const socket of [down, up]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
    }
    down.on('data', (bytes: Buffer) => {
      if (forgotten !== undefined && bytes.includes(`user\0${forgotten}\0`))
        return void down.end(NO_SUCH_USER)
      if (wanted !== undefined && bytes.includes(wanted)) {
        holding = true
        wanted = undefined
      }
      if (doomed !== undefined && bytes.includes(doomed)) {
        losing = true
        doomed = undefined
      }
      if (!holding) return void up.write(bytes)
      kept.push({ up, bytes })
      tell()
    })
    up.on('data', (bytes: Buffer) => {
      if (losing) down.destroy()
      if (!down.destroyed) down.write(pooler ? renumbered(bytes) : bytes)
    })
    // A wire that holds something back, or was cut, does not tell the server that its
    // client has gone.
    down.on('close', () => holding || cut || up.destroy())
    up.on('close', () => down.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    held,
    hold: (text) => (wanted = text),
    forget: (role) => (forgotten = role),
    lose: (text) => (doomed = text),
    cut: () => {
      cut = true
      for (const client of clients) client.destroy()
    },
    release: async () => {
      for (const { up, bytes } of kept.splice(0)) {
        const answered = new Promise((resolve) => up.once('data', resolve).once('close', resolve))
        if (up.destroyed) continue
        up.write(bytes)
        await answered
      }
    },
    stop: () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

/** ErrorResponse, as PgBouncer 1.18 sends it. */
const NO_SUCH_USER = ((): Buffer => {
  const fields = Buffer.from('SFATAL\0C08P01\0Mno such user\0\0')
  const head = Buffer.from([0x45, 0, 0, 0, 0])
  head.writeInt32BE(fields.length + 4, 1)
  return Buffer.concat([head, fields])
})()

/**
 * BackendKeyData: `K`, length 12, process number, key
 * (https://www.postgresql.org/docs/current/protocol-message-formats.html).
 */
function renumbered(bytes: Buffer): Buffer {
  const at = bytes.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]))
  if (at < 0) return bytes
  const other = Buffer.from(bytes)
  other.writeInt32BE(other.readInt32BE(at + 5) ^ 0x40000000, at + 5)
  return other
}
