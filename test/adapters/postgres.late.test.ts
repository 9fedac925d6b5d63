/**
 * Changes that the server carries out late or not at all, or whose answer is lost:
 * against a real server that real sessions keep waiting.
 */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { AdapterError } from '../../src/core/errors.ts'
import type { Intent } from '../../src/core/model.ts'
import type { ProviderSession, Settlement } from '../../src/core/provider.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { type Fields, Secret } from '../../src/core/secret.ts'
import postgres, { openSession, type Options } from '../../src/providers/postgres.ts'
import { START } from '../fakes/clock.ts'
import { testContext } from '../fakes/context.ts'
import { type Relay, startRelay } from '../fakes/postgres-relay.ts'
import { hasPostgres, type Server, startPostgres } from '../fakes/postgres-server.ts'

const SHORT = { lock: 200, statement: 30_000, answer: 60_000, end: 5000 }
/** Limits for tests in which an event, and not a time-out, ends the wait. */
const LONG = { lock: 60_000, statement: 60_000, answer: 60_000, end: 5000 }
const WORKING = "SELECT FROM pg_stat_activity WHERE application_name = $1 AND state = 'active'"

describe.skipIf(!hasPostgres).each(['single', 'two-users'] as const)('%s', (strategy) => {
  let server: Server
  let serial = 0
  const open: pg.Client[] = []
  const relays: Relay[] = []
  beforeAll(async () => {
    server = await startPostgres()
  })
  afterAll(async () => {
    for (const relay of relays) relay.stop()
    for (const client of open) await client.end().catch(() => undefined)
    await server.stop()
  })

  const accepts = async ({ username, password }: Fields): Promise<boolean> => {
    const client = new pg.Client({
      host: '127.0.0.1',
      port: server.port,
      database: 'postgres',
      user: username?.reveal() ?? '',
      password: password?.reveal() ?? '',
    })
    client.on('error', () => undefined)
    try {
      await client.connect()
      return true
    } catch {
      return false
    } finally {
      await client.end()
    }
  }
  const another = async (): Promise<pg.Client> => {
    const client = await server.admin()
    open.push(client)
    return client
  }
  const relayed = async (options?: { pooler: boolean }): Promise<Relay> => {
    const relay = await startRelay(server.port, options)
    relays.push(relay)
    return relay
  }

  /**
   * Two roles, of which the first one is in use, and what a rotation with this strategy
   * needs.
   */
  async function bench(suffix = '') {
    const [a, b] = [`app_a${++serial}${suffix}`, `app_b${serial}${suffix}`]
    const admin = await another()
    await admin.query(`CREATE ROLE ${a} LOGIN PASSWORD 'the-old-password'`)
    await admin.query(`CREATE ROLE ${b} LOGIN PASSWORD 'one-of-b'`)
    const at = (port: number, more: Record<string, unknown> = {}): Options =>
      parseConfig(
        postgres.config,
        {
          host: '127.0.0.1',
          port,
          admin: { user: 'admin', password: server.password },
          ...(strategy === 'single' ? { user: a, strategy } : { users: [a, b] }),
          ...more,
        } as never,
        'it',
      ) as Options
    const old = { username: new Secret(a), password: new Secret('the-old-password') }
    const name = strategy === 'single' ? a : b
    const password = new Secret(`the-new-password-${serial}`)
    const intent: Intent = {
      tag: `rotate-test-${serial}-${strategy}-1`,
      before: [],
      material: { password },
      at: START,
      attempt: 1,
    }
    return {
      a,
      b,
      at,
      old,
      name,
      intent,
      fresh: { username: new Secret(name), password },
      current: { fields: old },
    }
  }
  const failure = async (call: Promise<unknown>): Promise<AdapterError> =>
    call.then(
      () => expect.fail('it succeeded'),
      (thrown: AdapterError) => thrown,
    )
  /** Waits until the session of this change waits for the named event. */
  const seen = async (tag: string, what: string): Promise<void> => {
    const admin = await another()
    for (;;) {
      const { rows } = await admin.query(
        `SELECT FROM pg_stat_activity WHERE application_name = $1 AND ${what}`,
        [tag],
      )
      if (rows.length > 0) return
      await admin.query('SELECT pg_sleep(0.02)')
    }
  }
  /** A session that settles as another process does after a crash. */
  const later = (config: Options): ProviderSession => openSession(config, testContext(), LONG)
  const nothing = async ({ old, fresh }: Awaited<ReturnType<typeof bench>>): Promise<void> => {
    expect([await accepts(old), await accepts(fresh)]).toEqual([true, false])
  }
  const applied = async (
    { old, fresh }: Awaited<ReturnType<typeof bench>>,
    settlement: Settlement,
  ): Promise<void> => {
    expect(settlement.outcome).toBe('applied')
    expect([await accepts(old), await accepts(fresh)]).toEqual([strategy === 'two-users', true])
  }

  test.each([
    ['a lock on pg_authid', 'LOCK TABLE pg_authid IN SHARE MODE'],
    ['the row of the role', 'ALTER ROLE $ CONNECTION LIMIT 50'],
  ])('%s is held for longer than we wait: nothing is done, then and later', async (_what, sql) => {
    const b = await bench()
    const other = await another()
    await other.query('BEGIN')
    await other.query(sql.replace('$', b.name))
    const error = await failure(
      openSession(b.at(server.port), testContext(), SHORT).create(b.intent, b.current),
    )
    expect(error).toMatchObject({ effect: 'none', code: 'unavailable', answered: true })
    expect(error.message).toContain('55P03')
    const settlement = await later(b.at(server.port)).settle(b.intent, b.current)
    expect(settlement).toMatchObject({ outcome: 'none', final: true })
    await other.query('COMMIT')
    await nothing(b)
  })

  test.each(['the connection breaks', 'we give up'])(
    '%s while the lock is held: what is never committed is taken back',
    async (how) => {
      const b = await bench()
      const relay = await relayed()
      const other = await another()
      await other.query('BEGIN; LOCK TABLE pg_authid IN SHARE MODE')
      // The server itself would wait for a minute.
      const bounds = { ...LONG, ...(how === 'we give up' ? { answer: 1500 } : {}) }
      const done = failure(
        openSession(b.at(relay.port), testContext(), bounds).create(b.intent, b.current),
      )
      if (how !== 'we give up') {
        await seen(b.intent.tag, "wait_event_type = 'Lock'")
        relay.cut()
      }
      expect((await done).effect).toBe('none')
      // Nobody settles an error with the effect "none", so the effect must stay true when
      // the server goes on.
      await other.query('ROLLBACK')
      const working = async (): Promise<number> =>
        (await other.query(WORKING, [b.intent.tag])).rows.length
      while ((await working()) > 0) await other.query('SELECT pg_sleep(0.02)')
      await nothing(b)
      const settlement = await later(b.at(server.port)).settle(b.intent, b.current)
      expect(settlement).toMatchObject({ outcome: 'none', final: true })
      await nothing(b)
    },
  )

  test.each([
    ['takes its change back', 'ROLLBACK', 'applied'],
    ['commits its change', 'COMMIT', 'none'],
  ] as const)('another session %s while we wait', async (_what, sql, outcome) => {
    const b = await bench()
    const other = await another()
    await other.query(`BEGIN; ALTER ROLE ${b.name} CONNECTION LIMIT 50`)
    const call = openSession(b.at(server.port), testContext(), LONG).create(b.intent, b.current)
    const done = call.then(
      () => undefined,
      (thrown: AdapterError) => thrown,
    )
    await seen(b.intent.tag, "wait_event_type = 'Lock'")
    await other.query(sql)
    const error = await done
    const settlement = await later(b.at(server.port)).settle(b.intent, b.current)
    if (outcome === 'applied') {
      expect(error).toBeUndefined()
      return applied(b, settlement)
    }
    // The error "tuple concurrently updated" belongs to a statement whose transaction is
    // never committed.
    expect(error).toMatchObject({ effect: 'none', code: 'failed' })
    expect(settlement).toMatchObject({ outcome: 'none', final: true })
    await nothing(b)
  })

  test('somebody ends our session before the commit: nothing was done', async () => {
    const b = await bench()
    const other = await another()
    await other.query('BEGIN; LOCK TABLE pg_authid IN SHARE MODE')
    const done = failure(
      openSession(b.at(server.port), testContext(), LONG).create(b.intent, b.current),
    )
    await seen(b.intent.tag, "wait_event_type = 'Lock'")
    await (
      await another()
    ).query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1', [
      b.intent.tag,
    ])
    expect(await done).toMatchObject({ effect: 'none' })
    await other.query('ROLLBACK')
    expect(await later(b.at(server.port)).settle(b.intent, b.current)).toMatchObject({
      outcome: 'none',
      final: true,
    })
    await nothing(b)
  })

  test('a commit on its way arrives after it was settled: it finds no session, and nothing changes', async () => {
    const b = await bench()
    const relay = await relayed()
    relay.hold('COMMIT')
    const done = failure(
      openSession(b.at(relay.port), testContext(), LONG).create(b.intent, b.current),
    )
    await relay.held
    relay.cut()
    expect(await done).toMatchObject({ effect: 'unknown', code: 'unavailable' })
    await seen(b.intent.tag, "state = 'idle in transaction'")
    const settlement = await later(b.at(server.port)).settle(b.intent, b.current)
    expect(settlement).toMatchObject({ outcome: 'none', final: true })
    await relay.release()
    await nothing(b)
  })

  test('a commit on its way arrives before it is settled: it is found', async () => {
    const b = await bench()
    const relay = await relayed()
    relay.hold('COMMIT')
    const done = failure(
      openSession(b.at(relay.port), testContext(), LONG).create(b.intent, b.current),
    )
    await relay.held
    relay.cut()
    expect((await done).effect).toBe('unknown')
    await relay.release()
    await applied(b, await later(b.at(server.port)).settle(b.intent, b.current))
  })

  test('a session that we have left is ended by the server itself', async () => {
    const b = await bench()
    const relay = await relayed()
    relay.hold('COMMIT')
    const bounds = { ...LONG, statement: 3000 }
    const done = failure(
      openSession(b.at(relay.port), testContext(), bounds).create(b.intent, b.current),
    )
    await relay.held
    relay.cut()
    expect((await done).effect).toBe('unknown')
    const admin = await another()
    const left = async (): Promise<number> =>
      (
        await admin.query('SELECT FROM pg_stat_activity WHERE application_name = $1', [
          b.intent.tag,
        ])
      ).rows.length
    while ((await left()) > 0) await admin.query('SELECT pg_sleep(0.02)')
    await relay.release()
    await nothing(b)
  })

  test('the answer to the commit is lost: the change is found', async () => {
    const b = await bench()
    const relay = await relayed()
    relay.lose('COMMIT')
    const create = openSession(b.at(relay.port), testContext(), LONG).create(b.intent, b.current)
    expect((await failure(create)).effect).toBe('unknown')
    await applied(b, await later(b.at(server.port)).settle(b.intent, b.current))
  })

  test('no synchronous standby confirms the commit: it stands on this server, and settle says so', async () => {
    const b = await bench()
    await server.set({ synchronous_standby_names: 'nobody' })
    try {
      expect(
        await failure(openSession(b.at(server.port), testContext(), SHORT).preflight(b.current)),
      ).toMatchObject({
        code: 'unavailable',
        effect: 'none',
      })
      // The standby disconnects between preflight and create.
      const relay = await relayed()
      const done = failure(
        openSession(b.at(relay.port), testContext(), SHORT).create(b.intent, b.current),
      )
      await seen(b.intent.tag, "wait_event = 'SyncRep'")
      relay.cut()
      expect((await done).effect).toBe('unknown')
      await seen(b.intent.tag, "wait_event = 'SyncRep'")
      expect(await accepts(b.old), 'until then the old one works').toBe(true)
      const settlement = await later(b.at(server.port)).settle(b.intent, b.current)
      expect(settlement.detail).toContain('no synchronous standby had confirmed it')
      await applied(b, settlement)
    } finally {
      await server.set({ synchronous_standby_names: undefined })
    }
  })

  test('a session of ours that may not be ended leaves it open: never "none"', async () => {
    const b = await bench()
    const relay = await relayed()
    relay.hold('COMMIT')
    const done = failure(
      openSession(b.at(relay.port), testContext(), LONG).create(b.intent, b.current),
    )
    await relay.held
    relay.cut()
    expect((await done).effect).toBe('unknown')
    await (
      await another()
    ).query(`CREATE ROLE weak${serial} LOGIN CREATEROLE PASSWORD 'weak-password'`)
    const other = b.at(server.port, { admin: { user: `weak${serial}`, password: 'weak-password' } })
    expect(await failure(later(other).settle(b.intent, b.current))).toMatchObject({
      code: 'denied',
    })
    await relay.release()
    await applied(b, await later(b.at(server.port)).settle(b.intent, b.current))
  })

  test('a session of ours that was told to end and is still there leaves it open', async () => {
    const b = await bench()
    const relay = await relayed()
    relay.hold('COMMIT')
    const done = failure(
      openSession(b.at(relay.port), testContext(), LONG).create(b.intent, b.current),
    )
    await relay.held
    relay.cut()
    expect((await done).effect).toBe('unknown')
    const { rows } = await (
      await another()
    ).query<{ pid: number }>('SELECT pid FROM pg_stat_activity WHERE application_name = $1', [
      b.intent.tag,
    ])
    const pid = rows[0]?.pid ?? expect.fail('no session')
    process.kill(pid, 'SIGSTOP')
    try {
      const settling = openSession(b.at(server.port), testContext(), { ...LONG, end: 200 }).settle(
        b.intent,
        b.current,
      )
      expect(await failure(settling)).toMatchObject({ code: 'unavailable', retryable: true })
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    expect(await later(b.at(server.port)).settle(b.intent, b.current)).toMatchObject({
      outcome: 'none',
      final: true,
    })
    await relay.release()
    await nothing(b)
  })

  test('through a pooler "none" is not final, because another server may have answered', async () => {
    const b = await bench()
    const relay = await relayed({ pooler: true })
    const through = b.at(relay.port)
    expect(await later(through).settle(b.intent, b.current)).toEqual({
      outcome: 'none',
      detail: `role ${b.name} does not have the new password`,
    })
    await later(through).create(b.intent, b.current)
    await applied(b, await later(through).settle(b.intent, b.current))
  })

  test('a role whose time is over takes no password: nothing is said of it', async () => {
    const b = await bench()
    await (await another()).query(`ALTER ROLE ${b.name} VALID UNTIL '2020-01-01'`)
    expect(await later(b.at(server.port)).settle(b.intent, b.current)).toMatchObject({
      outcome: 'ambiguous',
    })
  })

  test('where the server asks for no password a settlement proves nothing', async () => {
    const b = await bench()
    await server.hba(`host all ${b.name} 127.0.0.1/32 trust`)
    try {
      const error = await failure(later(b.at(server.port)).settle(b.intent, b.current))
      expect(error.message).toContain('proves nothing')
    } finally {
      await server.hba()
    }
  })
})
