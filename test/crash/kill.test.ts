/**
 * The built program is killed by SIGKILL at random moments of `rotate now`, and at its
 * requests, before and after the provider has done the work; then at most three `run-due`
 * follow. At the end exactly one live key exists at the provider, `get` returns it, the
 * target holds it, and the audit chain verifies. Meanwhile a probe calls `get`, which
 * must never fail and never return a value that the service refuses.
 *
 * `ROTATE_KILLS` is the number of random kills per provider (default 3);
 * `npm run crash:full` runs 250 each and every request.
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { program, Sandbox } from '../cli/program.ts'
import { later } from '../cli/rotation-world.ts'
import { FakeAws } from '../fakes/aws.ts'
import { FakeWebhook } from '../fakes/webhook.ts'

const KILLS = Number(process.env['ROTATE_KILLS'] ?? 3)
/**
 * The requests at which the program is killed: the first twelve in the full run, a sample
 * in the normal one.
 */
const REQUESTS = KILLS > 50 ? Array.from({ length: 12 }, (_, i) => i + 1) : [2, 4]
const PATH = 'production/app/API_KEY'

/** A simulated provider, with what the test must know of it. */
interface World {
  readonly config: unknown
  readonly provider: string
  /** The secret's first value, as flags of `set`. */
  first(): readonly string[]
  /** Whether this output of `get` is a value that works. */
  accepts(output: string): boolean
  live(): readonly string[]
  calls(): number
  /** Makes the n-th call from now hang, before or after its work is done. */
  hang(n: number, when: 'before' | 'after'): void
  heal(): void
  close(): Promise<void>
}

async function webhookWorld(): Promise<World> {
  const fake = await FakeWebhook.start({
    overlap: true,
    idempotent: true,
    actions: ['verify', 'revoke'],
    secret: 'hook-secret',
    live: ['first-value-0123456789'],
  })
  return {
    provider: 'custom',
    config: {
      webhookUrl: fake.hookUrl,
      secret: 'hook-secret',
      overlap: true,
      idempotent: true,
      actions: ['verify', 'revoke'],
    },
    first: () => ['--value', 'first-value-0123456789'],
    accepts: (output) => fake.live.includes(output.trimEnd()),
    live: () => fake.live,
    calls: () => fake.calls.length,
    hang: (n, when) =>
      fake.inject({
        kind: when === 'after' ? 'hang-after' : 'hang-before',
        skip: n - 1,
        ms: 60_000,
      }),
    heal: () => fake.clearFaults(),
    close: () => fake.stop(),
  }
}

async function awsWorld(): Promise<World> {
  const fake = await FakeAws.start()
  fake.addUser('svc')
  const first = fake.addKey('svc')
  const active = (): readonly string[] => fake.keysOf('svc').map((key) => key.id)
  return {
    provider: 'aws',
    config: {
      accessKeyId: fake.admin.id,
      secretAccessKey: fake.admin.secret,
      region: 'us-east-1',
      iamUserName: 'svc',
      endpoint: fake.url,
    },
    first: () => [
      '--field',
      `accessKeyId=${first.id}`,
      '--field',
      `secretAccessKey=${first.secret}`,
      '--type',
      'aws_access_key',
    ],
    accepts: (output) => {
      const value = JSON.parse(output) as { accessKeyId: string; secretAccessKey: string }
      return fake
        .keysOf('svc')
        .some(
          (key) =>
            key.id === value.accessKeyId &&
            key.secret === value.secretAccessKey &&
            key.status === 'Active',
        )
    },
    live: active,
    calls: () => fake.calls.length,
    hang: (n, when) =>
      fake.fault({
        action: '*',
        kind: when === 'after' ? 'delay-after' : 'delay-before',
        skip: n - 1,
        ms: 60_000,
      }),
    heal: () => fake.clearFaults(),
    close: () => fake.close(),
  }
}

/** Starts `rotate now`. `kill` kills it, and `gone` resolves once it has ended. */
function rotating(sandbox: Sandbox): { readonly kill: () => void; readonly gone: Promise<void> } {
  const child = spawn(program, ['rotate', PATH], {
    env: { HOME: sandbox.home, PATH: '/usr/bin:/bin', ROTATE_KEY_FILE: sandbox.keyFile },
    cwd: sandbox.home,
    stdio: 'ignore',
  })
  return {
    kill: () => void child.kill('SIGKILL'),
    gone: new Promise((resolve) => child.once('close', () => resolve())),
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

describe.each([
  ['web hook', webhookWorld],
  ['AWS', awsWorld],
])('%s', (_name, makeWorld) => {
  let world: World
  let sandbox: Sandbox

  beforeAll(async () => {
    world = await makeWorld()
    sandbox = await new Sandbox().init()
    const set = await sandbox.run(['set', PATH, ...world.first()])
    expect(set.code, set.stderr).toBe(0)
    const target = JSON.stringify({ type: 'env-file', path: sandbox.path('app.env') })
    const options = [
      '--interval',
      '30',
      '--grace',
      '0',
      '--quarantine',
      '0',
      '--config',
      JSON.stringify(world.config),
      '--target',
      target,
    ]
    const scheduled = await sandbox.run([
      'schedule',
      'set',
      PATH,
      '--provider',
      world.provider,
      ...options,
    ])
    expect(scheduled.code, scheduled.stderr).toBe(0)
  })
  afterAll(async () => {
    sandbox.dispose()
    await world.close()
  })
  beforeEach(() => world.heal())
  afterEach(() => world.heal())

  /**
   * Recovers with at most three `run-due`, and compares the result with the provider's
   * state.
   */
  async function settle(what: string): Promise<void> {
    world.heal()
    let last
    for (let i = 0; i < 3; i++) {
      // A call that may still be carried out is believed to be absent only after its
      // date, so later runs see a later time. The shift is less than the five minutes by
      // which a clock may be behind.
      last = await sandbox.run(['run-due'], { env: later(i === 0 ? 0 : 100_000) })
      if (last.code === 0 && (await open()) === undefined && world.live().length === 1) break
    }
    expect(last?.code, `${what}: ${last?.stderr ?? ''}`).toBe(0)
    expect(await open(), what).toBeUndefined()
    const got = await sandbox.run(['get', PATH])
    expect(got.code, `${what}: ${got.stderr}`).toBe(0)
    expect(world.accepts(got.stdout), `${what}: get returns what the service refuses`).toBe(true)
    expect(world.live(), `${what}: keys at the provider`).toHaveLength(1)
    const env = readFileSync(sandbox.path('app.env'), { encoding: 'utf8', flag: 'a+' })
    const value = got.stdout.trimEnd()
    const held = value.startsWith('{')
      ? (JSON.parse(value) as { secretAccessKey: string }).secretAccessKey
      : value
    if (env !== '') expect(env.includes(held), `${what}: the target holds another value`).toBe(true)
    const audit = await sandbox.run(['audit', 'verify'])
    expect(audit.code, `${what}: ${audit.stderr}`).toBe(0)
  }

  async function open(): Promise<string | undefined> {
    const shown = await sandbox.run(['show', PATH, '--json'])
    return (
      (JSON.parse(shown.stdout) as { data: { secret: { openRun?: string | null } } }).data.secret
        .openRun ?? undefined
    )
  }

  test('how many requests a rotation makes, undisturbed', async () => {
    const before = world.calls()
    const done = await sandbox.run(['rotate', PATH])
    expect(done.code, done.stderr).toBe(0)
    await settle('undisturbed')
    expect(world.calls() - before).toBeGreaterThan(3)
  })

  test.each(REQUESTS.flatMap((n) => [[n, 'before'] as const, [n, 'after'] as const]))(
    'killed in request %i, %s its work was done',
    async (n, when) => {
      const before = world.calls()
      world.hang(n, when)
      const run = rotating(sandbox)
      const deadline = Date.now() + 60_000
      while (
        world.calls() - before < n &&
        Date.now() < deadline &&
        !(await Promise.race([run.gone.then(() => true), pause(20).then(() => false)]))
      );
      await pause(30)
      run.kill()
      await run.gone
      await settle(`request ${n} ${when}`)
    },
    300_000,
  )

  test(
    `${KILLS} kills at random moments, with a probe`,
    async () => {
      let seed = 20_261_121
      const random = (): number =>
        (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) / 2_147_483_648
      for (let i = 0; i < KILLS; i++) {
        const run = rotating(sandbox)
        const moment = Math.floor(60 + random() * 900)
        const [probe] = await Promise.all([sandbox.run(['get', PATH, '--silent']), pause(moment)])
        expect(probe.code, probe.stderr).toBe(0)
        run.kill()
        await run.gone
        await settle(`kill ${i} after ${moment} ms`)
      }
    },
    KILLS * 20_000 + 30_000,
  )
})
