/** Between us and a server: hands everything on and keeps what we say; or hangs up, before or after the server had it. */
import { type AddressInfo, connect, createServer } from 'node:net'

export type Verdict = 'pass' | 'cut' | 'lose answer'

export interface Between {
  readonly port: number
  said(): string
  close(): Promise<void>
}

export async function between(far: number, judge: (part: Buffer) => Verdict = () => 'pass'): Promise<Between> {
  let said = ''
  const proxy = createServer((client) => {
    const server = connect(far, '127.0.0.1')
    let deaf = false
    client.on('error', () => undefined)
    server.on('error', () => undefined)
    client.on('close', () => server.destroy())
    server.on('close', () => client.destroy())
    client.on('data', (part: Buffer) => {
      said += part.toString()
      const verdict = judge(part)
      if (verdict === 'cut') return client.destroy()
      deaf ||= verdict === 'lose answer'
      return server.write(part)
    })
    server.on('data', (part) => (deaf ? client.destroy() : client.write(part)))
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  const { port } = proxy.address() as AddressInfo
  return { port, said: () => said, close: () => new Promise<void>((resolve) => proxy.close(() => resolve())) }
}
