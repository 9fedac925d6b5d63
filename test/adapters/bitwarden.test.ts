import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { AdapterError } from '../../src/core/errors.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import type { TargetSession } from '../../src/core/target.ts'
import bitwarden from '../../src/targets/bitwarden.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { documentSuite } from '../conformance/document.suite.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { FakeBw } from '../fakes/bw.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { delivery } from '../fakes/delivery.ts'

targetSuite('bitwarden', bitwarden, () => {
  const bw = new FakeBw()
  bw.add('api', { fields: [{ name: 'host', value: 'kept by people', type: 0 }] })
  const { session } = bw.state
  return {
    config: { item: 'api', session, create: true, program: bw.path },
    read: (name) => bw.field('api', name) ?? undefined,
    failNext: () =>
      bw.fail({ call: 'edit item', stderr: `no: ${session} first-value-of-version-3` }),
    secrets: [session, 'kept by people'],
    stop: () => Promise.resolve(bw.remove()),
  }
})

documentSuite('bitwarden', bitwarden, () => {
  const bw = new FakeBw()
  bw.add('api', {
    notes: null,
    login: { username: 'app', password: null },
    fields: [
      { name: 'NEIGHBOUR', value: 'theirs', type: 0 },
      { name: 'OURS', value: 'before', type: 0 },
      { name: 'linked', value: null, type: 3 },
    ],
  })
  const config = { item: 'api', session: bw.state.session, create: true, program: bw.path }
  const write = (name: string, value: string): void =>
    bw.change((state) => {
      const [item] = state.server
      Object.assign(item?.fields?.find((field) => field.name === name) ?? {}, { value })
      if (item !== undefined) item.revisionDate = `of-somebody-${++state.ticks}`
    })
  return {
    config: { ...config, dataDir: bw.dir },
    alias: { ...config, dataDir: bw.dir, item: 'dcdfc4f8-4c7c-4920-9d83-b285014261d6' },
    elsewhere: config,
    read: (name) => bw.field('api', name) ?? undefined,
    write,
    between: (act) => bw.meanwhile({ call: 'edit item', when: 'before' }, () => void act()),
    after: (act) => bw.meanwhile({ call: 'edit item', when: 'after' }, () => void act()),
    whole: () =>
      JSON.stringify({ ...bw.item('api'), revisionDate: undefined, passwordHistory: undefined }),
    secrets: [bw.state.session],
    stop: () => Promise.resolve(bw.remove()),
  }
})

const failure = (call: Promise<unknown>): Promise<unknown> =>
  call.catch((thrown: unknown) => thrown)

describe('bitwarden', () => {
  let bw: FakeBw
  let context: TestContext
  beforeEach(() => {
    bw = new FakeBw()
    context = testContext()
  })
  afterEach(() => bw.remove())
  const open = (more: Record<string, unknown> = {}): Promise<TargetSession> => {
    const config = {
      item: 'api',
      field: 'login.password',
      session: bw.state.session,
      program: bw.path,
      ...more,
    }
    return bitwarden.open(parseConfig(bitwarden.config, config as never, 'it'), context)
  }
  const edits = (): number =>
    bw.argvs.filter((argv) => /^--nointeraction (edit|create) item/.test(argv)).length

  test('the password of a login: base64 by stdin, nothing on a command line, everything else stays', async () => {
    const id = bw.add('api', {
      notes: 'note of people',
      login: {
        username: 'app',
        password: 'old-value-123',
        totp: null,
        uris: [{ uri: 'https://a.test' }],
        fido2Credentials: [{ credentialId: 'passkey-1' }],
      },
      fields: [{ name: 'host', value: 'a.test', type: 0 }],
      attachments: [{ id: 'att1', url: '' }],
    })
    const before = bw.item('api')
    const session = await open({ item: id.toUpperCase() })
    await session.probe()
    expect((await session.current?.(['API_KEY']))?.['API_KEY']?.reveal()).toBe('old-value-123')
    expect(edits()).toBe(0)
    await session.put(delivery('new "väl" $1'))
    expect(bw.item('api')).toEqual({
      ...before,
      revisionDate: expect.any(String) as string,
      login: { ...before?.login, password: 'new "väl" $1' },
      passwordHistory: [expect.objectContaining({ password: 'old-value-123' })],
    })
    const { calls, session: key } = bw.state
    const written = calls.find(({ argv }) => argv.includes('edit'))
    expect(Buffer.from(written?.stdin ?? '', 'base64').toString()).toContain('väl')
    expectNoLeak(
      calls.map(({ argv }) => argv),
      ['new "väl" $1', 'old-value-123', key],
    )
    for (const { argv, env } of calls) {
      expect(argv[0]).toBe('--nointeraction')
      expect(
        Object.keys(env).filter((name) => !/^(PATH|HOME|LANG|TZ|PWD|SHLVL|_|OLDPWD)$/.test(name)),
      ).toEqual(['BW_SESSION'])
    }
  })

  test('it is synced before everything that is read: a change of today is seen, and kept', async () => {
    bw.add('api', { login: { password: 'old-value-123' } })
    const session = await open()
    await session.probe()
    bw.change(
      ({ server, ticks }) =>
        void Object.assign(server[0] ?? {}, { notes: 'new note', revisionDate: `later-${ticks}` }),
    )
    await session.put(delivery('new-value-1'))
    expect(bw.item('api')).toMatchObject({ notes: 'new note', login: { password: 'new-value-1' } })
  })

  test('somebody who is faster all the time: nothing is written, and it may be tried again', async () => {
    bw.add('api', { login: { password: 'old-value-123' } })
    const session = await open()
    const faster = {
      call: 'edit item',
      stderr:
        'The cipher you are updating is out of date. Please save your work, sync your vault, ' +
        'and try again.',
    }
    for (let n = 1; n <= 5; n++) bw.fail(faster)
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'failed',
      effect: 'unknown',
      retryable: true,
    })
    expect(bw.item('api')?.login?.password).toBe('old-value-123')
    bw.fail(faster)
    await session.put(delivery('new-value-1'))
    expect(bw.item('api')?.login?.password).toBe('new-value-1')
  })

  test('a field without a value gets none back, and a value of a neighbour after our write is his', async () => {
    bw.add('api', { fields: ['API_KEY', 'OTHER'].map((name) => ({ name, value: null, type: 1 })) })
    const session = await open({ field: '{name}' })
    const stood = await session.standing?.(['API_KEY'])
    bw.meanwhile({ call: 'edit item', when: 'after' }, () =>
      bw.change(({ server }) => {
        Object.assign(server[0] ?? {}, { revisionDate: 'later' })
        Object.assign(server[0]?.fields?.[1] ?? {}, { value: 'theirs' })
      }),
    )
    await session.put(delivery('new-value-1'))
    expect([bw.field('api', 'API_KEY'), bw.field('api', 'OTHER')]).toEqual([
      'new-value-1',
      'theirs',
    ])
    await session.restore(stood?.values, undefined, stood?.rest)
    expect([bw.field('api', 'API_KEY'), bw.field('api', 'OTHER')]).toEqual([null, 'theirs'])
  })

  test('a repetition writes nothing', async () => {
    bw.add('api', { login: { password: 'old-value-123' } })
    const session = await open()
    await session.put(delivery('new-value-1'))
    await session.put(delivery('new-value-1'))
    expect(edits()).toBe(1)
  })

  test('a login as a whole in one write, and back; an empty part was none', async () => {
    bw.add('api', { login: { username: 'app_a', password: null } })
    const session = await open({ field: 'login.{name}' })
    const entries = { username: new Secret('app_b'), password: new Secret('new-value-1') }
    const prior = await session.current?.(['username', 'password'])
    expect(prior?.['password']).toBeNull()
    await session.put({ ...delivery('x'), entries })
    expect(bw.item('api')?.login).toMatchObject({ username: 'app_b', password: 'new-value-1' })
    expect(edits()).toBe(1)
    await session.restore(prior, undefined)
    expect(bw.item('api')?.login).toMatchObject({ username: 'app_a', password: null })
    expect(await session.current?.(['username', 'password'])).toEqual(prior)
  })

  test('a lost answer: what was done is unknown, a repetition and an undo find out', async () => {
    bw.add('api', { login: { password: 'old-value-123' } })
    const session = await open()
    bw.fail({ call: 'edit item', after: true, stderr: 'socket hang up' })
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'failed',
      effect: 'unknown',
    })
    await session.put(delivery('new-value-1'))
    expect(edits()).toBe(1)
    await session.restore({ API_KEY: new Secret('old-value-123') }, undefined)
    expect(bw.item('api')?.login?.password).toBe('old-value-123')
  })

  test('an edit that says yes and does nothing, and one that takes more than was asked', async () => {
    bw.add('api', {
      login: { password: 'old-value-123' },
      fields: [{ name: 'other', value: 'x', type: 0 }],
    })
    const session = await open()
    bw.fail({ call: 'edit item', hollow: true })
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
    })
    bw.change(({ loses }) => void loses.push('other'))
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'failed',
      effect: 'applied',
      retryable: false,
    })
  })

  test('a look after the write that fails leaves open what the write did', async () => {
    bw.add('api', { login: { password: 'old-value-123' } })
    const session = await open()
    bw.fail({ call: 'sync', skip: 1, stderr: 'connect ECONNREFUSED 127.0.0.1:1' })
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'unreachable',
      effect: 'unknown',
    })
    expect(bw.item('api')?.login?.password).toBe('new-value-1')
  })

  test('an item is made only when asked for: a note for fields, a login for its parts', async () => {
    await expect((await open()).probe()).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    const byId = await open({ create: true, item: 'dcdfc4f8-4c7c-4920-9d83-b285014261d6' })
    await expect(byId.probe()).rejects.toMatchObject({ code: 'misconfigured' })
    const session = await open({ create: true })
    await session.probe()
    bw.fail({ call: 'create item', after: true, stderr: 'socket hang up' })
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({ effect: 'unknown' })
    await session.put(delivery('new-value-1'))
    expect(bw.state.server).toMatchObject([
      { type: 1, name: 'api', login: { password: 'new-value-1' } },
    ])
    await session.restore({ API_KEY: null }, undefined)
    expect(await session.current?.(['API_KEY'])).toEqual({ API_KEY: null })
    await (await open({ item: 'note', field: '{name}', create: true })).put(delivery('new-value-2'))
    expect(bw.item('note')).toMatchObject({
      type: 2,
      fields: [{ name: 'API_KEY', value: 'new-value-2', type: 1 }],
    })
  })

  test('without "create" no field is made or taken away', async () => {
    bw.add('api', {})
    const session = await open({ field: '{name}' })
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    bw.change(({ server }) =>
      server[0]?.fields?.push({ name: 'API_KEY', value: 'theirs', type: 1 }),
    )
    await session.restore({ API_KEY: null }, undefined)
    expect(bw.field('api', 'API_KEY')).toBe('theirs')
    expect(edits()).toBe(0)
  })

  test('a field that is not there and may not be made is found when it is asked what stands there', async () => {
    bw.add('api', { fields: [{ name: 'linked', value: null, type: 3 }] })
    const session = await open({ field: '{name}' })
    expect(await failure(session.standing?.(['API_KEY']) ?? Promise.resolve())).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringContaining('no field API_KEY') as string,
      hints: [expect.stringContaining('"create": true')],
    })
    expect(await session.current?.(['API_KEY'])).toEqual({ API_KEY: null })
    expect(
      (await (await open({ field: '{name}', create: true })).standing?.(['API_KEY']))?.values,
    ).toEqual({ API_KEY: null })
  })

  test('a name is taken literally, and never for one of several items', async () => {
    bw.add('api-of-somebody-else', {})
    await expect((await open()).probe()).rejects.toMatchObject({ code: 'misconfigured' })
    bw.add('api', {})
    await (await open()).probe()
    bw.add('api', {})
    await expect((await open()).probe()).rejects.toMatchObject({
      code: 'misconfigured',
      hints: ['use its id'],
    })
  })

  test.each([
    [
      'not logged in',
      () => bw.change((state) => void (state.status = 'unauthenticated')),
      {},
      { code: 'denied' },
      'bw login',
    ],
    [
      'the session key is an old one',
      () => undefined,
      { session: 'old-session-key-99' },
      { code: 'denied' },
      'bw unlock',
    ],
  ])('%s', async (_what, make, more, want, hint) => {
    bw.add('api', {})
    make()
    const error = await failure((await open(more)).probe())
    expect(error).toMatchObject({ ...want, effect: 'none', hints: [expect.stringContaining(hint)] })
    expectNoLeak(error, ['old-session-key-99', bw.state.session])
  })

  test('an account that may only read is told what it lacks', async () => {
    bw.add('api', { login: { password: 'old-value-123' } })
    bw.change((state) => void (state.rights = 'read'))
    const error = await failure((await open()).put(delivery('new-value-1')))
    expect(error).toMatchObject({
      code: 'denied',
      effect: 'none',
      hints: [expect.stringContaining('Can edit')],
    })
    expectNoLeak(error, ['new-value-1', 'old-value-123'])
  })

  test('what bw prints of the item does not show', async () => {
    bw.add('api', {
      login: { password: 'old-value-123' },
      fields: [{ name: 'x', value: 'hidden-value-7', type: 1 }],
    })
    bw.fail({ call: 'edit item', stderr: 'bad request: new-value-1 hidden-value-7' })
    const error = await failure((await open()).put(delivery('new-value-1')))
    expect((error as AdapterError).message).toContain('bad request: [secret] [secret]')
  })

  test.each([
    ['in the trash', { deletedDate: '2026-11-01T00:00:00.000Z' }, {}],
    ['no login', { type: 2 }, {}],
    [
      'a linked field',
      { fields: [{ name: 'API_KEY', value: null, type: 3 }] },
      { field: '{name}' },
    ],
    [
      'two fields of that name',
      { fields: ['1', '2'].map((value) => ({ name: 'API_KEY', value, type: 1 })) },
      { field: '{name}' },
    ],
  ])('an item that is not fit: %s', async (_what, item, more) => {
    const id = bw.add('api', item)
    const session = await open({ item: id, ...more })
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    expect(edits()).toBe(0)
  })

  test('a login of its own has its directory; several values need {name}', async () => {
    bw.add('api', {})
    const session = await open({ dataDir: '/var/lib/bw' })
    await session.probe()
    expect(bw.state.calls[0]?.env['BITWARDENCLI_APPDATA_DIR']).toBe('/var/lib/bw')
    const entries = { A: new Secret('1'), B: new Secret('2') }
    await expect(session.put({ ...delivery('x'), entries })).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
  })

  test('the program is made absolute when set', async () => {
    const settle = (program: string) =>
      bitwarden.settleConfig({ item: 'i', session: 's', program }, testContext())
    expect(await settle(bw.path)).toMatchObject({ program: bw.path })
    await expect(settle('/nowhere/bw')).rejects.toMatchObject({ code: 'misconfigured' })
  })
})

test.each([
  [{ item: '--help' }, /item/],
  [{ field: 'a\nb' }, /field/],
  [{ dataDir: 'relative' }, /dataDir/],
  [{ session: '' }, /session/],
])('the configuration %j is refused', (more, message) => {
  const config = { item: 'i', session: 'hidden-session-1', ...more }
  const error = (() => {
    try {
      return parseConfig(bitwarden.config, config as never, 'it')
    } catch (thrown) {
      return thrown
    }
  })()
  expect(String(error)).toMatch(message)
  expectNoLeak(error, ['hidden-session-1'])
})
