/**
 * MySQL 8 as far as the provider `mysql` speaks with it, over TCP and the real protocol:
 * the stable Debian has no MySQL. Stateful; what it answers to the statements about
 * accounts is what a real one answers to the same tests (`npm run test:long`), and
 * https://dev.mysql.com/doc/refman/8.4/en/password-management.html. The exchange of
 * packets is that of
 * https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html.
 */
import {
  constants,
  createHash,
  generateKeyPairSync,
  privateDecrypt,
  randomBytes,
} from 'node:crypto'
import { createServer, type Socket } from 'node:net'
import type { AddressInfo } from 'node:net'
import { TLSSocket } from 'node:tls'
import { Secret } from '../../src/core/secret.ts'
import { isMethod, isStoredFormOf } from '../../src/net/mysql-hash.ts'
import type { Certificate } from './certificate.ts'

export interface FakeAccount {
  plugin: string
  hash: string
  retained?: string
  locked: boolean
  /** PASSWORD EXPIRE: whoever logs in may do nothing but change it. */
  expired?: boolean
  /** FAILED_LOGIN_ATTEMPTS: how many logins may fail before the account is blocked. */
  attempts?: number
  /** May change accounts, and read mysql.user. */
  readonly admin: boolean
}

class Refusal extends Error {
  readonly errno: number
  constructor(errno: number) {
    super(`error ${errno}`)
    this.errno = errno
  }
}

const text = (value: string): Buffer =>
  Buffer.concat([lengthOf(Buffer.byteLength(value)), Buffer.from(value)])
const lengthOf = (size: number): Buffer =>
  size < 251 ? Buffer.from([size]) : Buffer.from([0xfc, size & 255, size >> 8])
const sha1 = (...parts: readonly Uint8Array[]): Buffer =>
  createHash('sha1').update(Buffer.concat(parts)).digest()
const xor = (a: Buffer, b: Buffer): Buffer =>
  Buffer.from(a.map((byte, i) => byte ^ (b[i % b.length] ?? 0)))
/** None of them NUL, which would end it. */
const nonceOf = (): Buffer => Buffer.from(randomBytes(20).map((byte) => (byte & 127) | 1))
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })

/**
 * One connection that is logged in. It lives until its statement has ended, whoever has
 * gone.
 */
class Session {
  readonly id: number
  readonly user: string
  lockWaitMs = 31_536_000_000
  killed = false
  readonly #kill: () => void
  readonly ended: Promise<void>

  constructor(id: number, user: string, socket: Socket) {
    this.id = id
    this.user = user
    let told: () => void = () => undefined
    this.ended = new Promise((resolve) => {
      told = resolve
    })
    this.#kill = () => {
      told()
      socket.destroy()
    }
  }

  kill(): void {
    this.killed = true
    this.#kill()
  }
}

type Row = Readonly<Record<string, string | number | null>>

/** What happens to the next statement that changes something. */
export type Fault = { readonly errno: number } | 'cut before' | 'cut after'

export class FakeMySql {
  /** By name, for those of the host `%`; else by `name@host`. */
  readonly accounts = new Map<string, FakeAccount>()
  readonly sessions = new Map<number, Session>()
  /** GET_LOCK, by name: which session has it. */
  readonly locks = new Map<string, number>()
  /** What somebody else does right before the next change. */
  meanwhile: (() => void) | undefined
  /** How many logins were refused. */
  refused = 0
  /** Started with skip-grant-tables. */
  open = false
  /** Some clusters refuse GET_LOCK. */
  lockless = false
  version = '8.4.6'
  fault: Fault | undefined
  /** Every statement, in order. */
  readonly log: string[] = []
  /** How many statements wait for what `hold` holds. */
  waiting = 0
  #sessions = 0
  #held: Promise<void> | undefined
  #failures = new Map<string, number>()
  readonly #server = createServer(
    (socket) => void this.#serve(socket).catch(() => socket.destroy()),
  )

  static async start(): Promise<FakeMySql> {
    const fake = new FakeMySql()
    await new Promise<void>((resolve) => fake.#server.listen(0, '127.0.0.1', resolve))
    return fake
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /**
   * As LOCK INSTANCE FOR BACKUP: statements that change an account wait until this is
   * released.
   */
  hold(): () => void {
    let release: () => void = () => undefined
    this.#held = new Promise((resolve) => {
      release = () => {
        this.#held = undefined
        resolve()
      }
    })
    return () => release()
  }

  stop(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()))
  }

  async #serve(socket: Socket): Promise<void> {
    let sequence = 0
    const send = (body: Buffer): void => {
      socket.write(
        Buffer.concat([
          Buffer.from([body.length & 255, body.length >> 8, 0, sequence++ & 255]),
          body,
        ]),
      )
    }
    const packets = packetsOf(socket)
    const next = async (): Promise<Buffer | undefined> => {
      const packet = await packets.next()
      if (packet.done === true) return undefined
      sequence = (packet.value[3] ?? 0) + 1
      return packet.value.subarray(4)
    }
    const fail = (errno: number): void =>
      send(Buffer.concat([Buffer.from([0xff, errno & 255, errno >> 8]), Buffer.from('#HY000no')]))
    const id = ++this.#sessions
    send(hello(this.version, 0, id))
    const reply = await next()
    if (reply === undefined) return
    const user = reply.subarray(32, reply.indexOf(0, 32)).toString()
    const refusal = this.open ? undefined : await this.#login(user, send, next)
    if (refusal !== undefined) {
      this.refused++
      fail(refusal)
      socket.end()
      return
    }
    const ok = Buffer.from([0, 0, 0, 2, 0, 0, 0])
    send(ok)
    const session = new Session(id, user, socket)
    this.sessions.set(id, session)
    try {
      for (;;) {
        const command = await next()
        // 3: COM_QUERY
        if (command === undefined || command[0] !== 3) break
        const sql = command.subarray(1).toString()
        this.log.push(sql)
        try {
          const rows = await this.#run(session, sql)
          if (rows === 'cut' || session.killed) break
          if (rows === undefined) send(ok)
          else for (const packet of resultOf(rows)) send(packet)
        } catch (thrown) {
          if (!(thrown instanceof Refusal)) throw thrown
          if (session.killed) break
          fail(thrown.errno)
        }
      }
    } finally {
      this.sessions.delete(id)
      for (const [name, holder] of this.locks) if (holder === id) this.locks.delete(name)
      socket.destroy()
    }
  }

  /**
   * Either password of an account is accepted, as long as the account is not locked (9b).
   * The number of the error, if it is refused.
   */
  async #login(
    user: string,
    send: (body: Buffer) => void,
    next: () => Promise<Buffer | undefined>,
  ): Promise<number | undefined> {
    const account = this.accounts.get(user)
    const plugin = account?.plugin ?? 'caching_sha2_password'
    const nonce = nonceOf()
    send(Buffer.concat([Buffer.from([0xfe]), Buffer.from(`${plugin}\0`), nonce, Buffer.alloc(1)]))
    const token = await next()
    if (token === undefined) return 1045
    const stored = [
      account?.hash ?? '',
      ...(account?.retained === undefined ? [] : [account.retained]),
    ].filter((hash) => hash !== '')
    let known = false
    if (plugin === 'mysql_native_password') {
      for (const hash of stored) {
        const twice = Buffer.from(hash.slice(1), 'hex')
        if (sha1(xor(token, sha1(nonce, twice))).equals(twice)) known = true
      }
    } else {
      // "Full authentication": the password under the server's RSA key, as there is no
      // TLS.
      send(Buffer.from([1, 4]))
      if ((await next())?.[0] !== 2) return 1045
      send(
        Buffer.concat([
          Buffer.from([1]),
          Buffer.from(rsa.publicKey.export({ type: 'spki', format: 'pem' })),
        ]),
      )
      const sealed = await next()
      if (sealed === undefined) return 1045
      const opened = privateDecrypt(
        { key: rsa.privateKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha1' },
        sealed,
      )
      const password = new Secret(xor(opened, nonce).subarray(0, -1))
      for (const hash of stored)
        if (isMethod(plugin) && (await isStoredFormOf(plugin, hash, password))) known = true
    }
    // https://dev.mysql.com/doc/refman/8.4/en/password-management.html#failed-login-tracking
    const { attempts } = account ?? {}
    const failures = this.#failures.get(user) ?? 0
    if (attempts !== undefined && failures >= attempts) return 3955
    this.#failures.set(user, known ? 0 : failures + 1)
    if (!known) return 1045
    return account?.locked === true ? 3118 : undefined
  }

  async #run(session: Session, sql: string): Promise<readonly Row[] | 'cut' | undefined> {
    const { user } = session
    const behind = this.open ? 'skip-grants user@skip-grants host' : `${user}@%`
    const admin = this.accounts.get(user)?.admin === true
    const asked = (pattern: RegExp): readonly string[] | undefined => pattern.exec(sql)?.slice(1)
    if (sql === 'SELECT VERSION() AS version, CURRENT_USER() AS account')
      return [{ version: this.version, account: behind }]
    if (sql === 'SELECT CURRENT_USER() AS account') {
      if (this.accounts.get(user)?.expired === true) throw new Refusal(1820)
      return [{ account: behind }]
    }
    const bounds = asked(
      /^SET SESSION lock_wait_timeout = ([\d.]+), SESSION innodb_lock_wait_timeout = [\d.]+$/,
    )
    if (bounds !== undefined) {
      session.lockWaitMs = Number(bounds[0]) * 1000
      return undefined
    }
    if (sql === 'SHOW GRANTS') {
      const title = `Grants for ${user}@%`
      return [{ [title]: `GRANT ${admin ? 'CREATE USER' : 'USAGE'} ON *.* TO \`${user}\`@\`%\`` }]
    }
    const lock = asked(/^SELECT GET_LOCK\('([^']+)', ([\d.]+)\) AS got$/)
    if (lock !== undefined)
      return [{ got: await this.#lock(session, lock[0] ?? '', Number(lock[1])) }]
    const used = asked(/^SELECT IS_USED_LOCK\('([^']+)'\) AS holder$/)
    if (used !== undefined) return [{ holder: this.locks.get(used[0] ?? '') ?? null }]
    const killed = asked(/^KILL CONNECTION (\d+)$/)
    if (killed !== undefined) {
      const victim = this.sessions.get(Number(killed[0]))
      if (victim === undefined) throw new Refusal(1094)
      if (victim.user !== user) throw new Refusal(1095)
      victim.kill()
      return undefined
    }
    const read = asked(/^SELECT Host AS host, plugin, .* FROM mysql\.user WHERE User = '([^']+)'$/)
    if (read !== undefined) {
      if (!admin) throw new Refusal(1142)
      return [...this.accounts].flatMap(
        ([key, { plugin, hash, retained, locked, expired }]): Row[] => {
          const [name, host = '%'] = key.split('@')
          const more = {
            retained: retained ?? null,
            locked: locked ? 'Y' : 'N',
            expired: expired === true ? 1 : 0,
          }
          return name === read[0] ? [{ host, plugin, hash, ...more }] : []
        },
      )
    }
    const change = asked(/^ALTER USER `([^`]+)`@`%` (.+)$/)
    if (change === undefined) throw new Refusal(1064)
    const fault = this.fault
    this.fault = undefined
    if (fault === 'cut before') return 'cut'
    if (typeof fault === 'object') throw new Refusal(fault.errno)
    if (!admin) throw new Refusal(1227)
    const target = this.accounts.get(change[0] ?? '')
    if (target === undefined) throw new Refusal(1396)
    await this.#unheld(session)
    this.meanwhile?.()
    this.meanwhile = undefined
    alter(target, change[1] ?? '')
    return fault === 'cut after' ? 'cut' : undefined
  }

  /** It ends with the session that has it. */
  async #lock(session: Session, name: string, seconds: number): Promise<number> {
    if (this.lockless) throw new Refusal(1105)
    const until = performance.now() + seconds * 1000
    while (this.locks.has(name)) {
      if (performance.now() >= until) return 0
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    this.locks.set(name, session.id)
    return 1
  }

  /**
   * A statement waits though its client has gone, until it is told to stop or has waited
   * too long.
   */
  async #unheld(session: Session): Promise<void> {
    if (this.#held === undefined) return
    let timer: NodeJS.Timeout | undefined
    const tooLong = new Promise<'too long'>((resolve) => {
      timer = setTimeout(resolve, Math.min(session.lockWaitMs, 2_000_000_000), 'too long')
    })
    this.waiting++
    const first = await Promise.race([
      this.#held,
      session.ended.then(() => 'killed' as const),
      tooLong,
    ])
    clearTimeout(timer)
    this.waiting--
    if (first === 'too long') throw new Refusal(1205)
    if (first === 'killed') throw new Refusal(1317)
  }
}

/**
 * 9b: what RETAIN keeps, DISCARD ends; a change without either leaves the retained one
 * valid; another method ends it, and can't retain.
 */
function alter(target: FakeAccount, clause: string): void {
  if (clause === 'DISCARD OLD PASSWORD') {
    delete target.retained
    return
  }
  const [, plugin = '', quotedHash, hex, retain, lock] =
    /^IDENTIFIED WITH (\w+) AS (?:'([^'\\]*)'|0x([0-9a-f]+))( RETAIN CURRENT PASSWORD)?(?: ACCOUNT (LOCK|UNLOCK))?$/.exec(
      clause,
    ) ?? []
  const hash = quotedHash ?? Buffer.from(hex ?? '', 'hex').toString('latin1')
  if (plugin === '' || (quotedHash === undefined && hex === undefined)) throw new Refusal(1064)
  // ER_PASSWORD_FORMAT
  if (!(plugin === 'caching_sha2_password' ? /^\$A\$005\$[^]{63}$/ : /^\*[0-9A-F]{40}$/).test(hash))
    throw new Refusal(1827)
  if (retain !== undefined) {
    if (plugin !== target.plugin) throw new Refusal(3894)
    if (target.hash === '') throw new Refusal(3895)
    target.retained = target.hash
  } else if (plugin !== target.plugin) delete target.retained
  target.plugin = plugin
  target.hash = hash
  delete target.expired
  if (lock !== undefined) target.locked = lock === 'LOCK'
}

/**
 * Somebody else who greets like MySQL and shows a certificate. `heard`: what came over
 * TLS, which begins with who wants to log in.
 */
export async function startImpostor({
  cert,
  key,
}: Certificate): Promise<{ port: number; heard(): string; stop(): void }> {
  let heard = ''
  const server = createServer((socket) => {
    const greeting = hello('8.4.6', 0x800, 1)
    socket.write(Buffer.concat([Buffer.from([greeting.length, 0, 0, 0]), greeting]))
    socket.on('error', () => undefined)
    socket.once('data', (first: Buffer) => {
      socket.pause()
      // Behind the 36 bytes that ask for TLS its first message may follow at once.
      if (first.length > 36) socket.unshift(first.subarray(36))
      const secure = new TLSSocket(socket, { isServer: true, cert, key })
      secure.on('error', () => undefined)
      secure.on('data', (part) => {
        heard += part.toString()
        secure.destroy()
      })
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    heard: () => heard,
    stop: () => void server.close(),
  }
}

/**
 * Protocol::HandshakeV10, with the length-encoded answers of before CLIENT_DEPRECATE_EOF.
 */
function hello(version: string, more: number, id: number): Buffer {
  const capabilities = more | 0x1 | 0x200 | 0x2000 | 0x8000 | 0x80000
  const nonce = nonceOf()
  const half = (shift: number): Buffer =>
    Buffer.from([(capabilities >> shift) & 255, (capabilities >> (shift + 8)) & 255])
  return Buffer.concat([
    Buffer.from(`\n${version}\0`),
    Buffer.from([id & 255, id >> 8, 0, 0]),
    nonce.subarray(0, 8),
    Buffer.alloc(1),
    half(0),
    Buffer.from([45, 2, 0]),
    half(16),
    Buffer.from([21]),
    Buffer.alloc(10),
    nonce.subarray(8),
    Buffer.from('\0caching_sha2_password\0'),
  ])
}

const NUMBERS = new Set(['got', 'holder', 'expired'])

/** A text result set: how many columns, what they are, EOF, the rows, EOF. */
function resultOf(rows: readonly Row[]): readonly Buffer[] {
  const names = Object.keys(rows[0] ?? { plugin: '' })
  const numeric = (name: string): boolean =>
    NUMBERS.has(name) || rows.some((row) => typeof row[name] === 'number')
  const eof = Buffer.from([0xfe, 0, 0, 2, 0])
  const column = (name: string): Buffer =>
    Buffer.concat([
      text('def'),
      text(''),
      text(''),
      text(''),
      text(name),
      text(name),
      numeric(name)
        ? Buffer.from([12, 63, 0, 21, 0, 0, 0, 8, 0x80, 0, 0, 0, 0])
        : Buffer.from([12, 45, 0, 0, 1, 0, 0, 253, 0, 0, 0, 0, 0]),
    ])
  const row = (values: readonly (string | number | null)[]): Buffer =>
    Buffer.concat(
      values.map((value) => (value === null ? Buffer.from([0xfb]) : text(String(value)))),
    )
  return [
    Buffer.from([names.length]),
    ...names.map(column),
    eof,
    ...rows.map((each) => row(Object.values(each))),
    eof,
  ]
}

async function* packetsOf(socket: Socket): AsyncGenerator<Buffer, void, undefined> {
  let rest = Buffer.alloc(0)
  for await (const part of socket) {
    rest = Buffer.concat([rest, part as Buffer])
    while (rest.length >= 4 && rest.length >= 4 + rest.readUIntLE(0, 3)) {
      const size = 4 + rest.readUIntLE(0, 3)
      yield rest.subarray(0, size)
      rest = rest.subarray(size)
    }
  }
}
