import { inspect } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { AdapterError } from '../../src/core/errors.ts'
import { parseConfig } from '../../src/core/schema.ts'
import { Secret } from '../../src/core/secret.ts'
import type { TargetSession } from '../../src/core/target.ts'
import onepassword from '../../src/targets/onepassword.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { documentSuite } from '../conformance/document.suite.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { FakeConnect } from '../fakes/connect.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { FakeOp, type OpField, type OpItem } from '../fakes/op.ts'
import { delivery } from '../fakes/delivery.ts'

const note: OpField = {
  id: 'notesPlain',
  type: 'STRING',
  purpose: 'NOTES',
  label: 'notesPlain',
  value: 'kept by people',
}
const credential = (value = 'old-value-123'): OpField => ({
  id: 'credential',
  type: 'CONCEALED',
  label: 'credential',
  value,
})

targetSuite('onepassword by op', onepassword, () => {
  const op = new FakeOp()
  op.add('api', [note])
  const { token } = op.state
  return {
    config: { vault: 'Production', item: 'api', token, create: true, program: op.path },
    read: (name) => op.value('api', name),
    failNext: () =>
      op.fail({ call: 'item edit', stderr: `[ERROR] no: ${token} first-value-of-version-3` }),
    secrets: [token, 'kept by people'],
    stop: () => Promise.resolve(op.remove()),
  }
})

targetSuite('onepassword by Connect', onepassword, async () => {
  const connect = await new FakeConnect().start()
  connect.add('api', [note])
  connect.lag = 3
  return {
    config: {
      vault: 'Production',
      item: 'api',
      token: connect.token,
      create: true,
      connect: connect.url,
    },
    read: (name) => connect.value('api', name),
    failNext: () => void connect.faults.push({ method: 'PATCH', path: /items/, status: 400 }),
    secrets: [connect.token, 'kept by people'],
    stop: () => connect.stop(),
  }
})

const shared = (): OpField[] => [
  note,
  { id: 'f1', type: 'STRING', label: 'OURS', value: 'before', section: { id: 's1' } },
  { id: 'f2', type: 'CONCEALED', label: 'NEIGHBOUR', value: 'theirs' },
]
const more = { sections: [{ id: 's1', label: 'Extra' }], tags: ['team'] }
function set(item: OpItem | undefined, name: string, value: string): void {
  const field = item?.fields.find(({ label }) => label === name)
  if (item === undefined || field === undefined) throw new Error(`no field ${name}`)
  field.value = value
  item.version++
}

documentSuite('onepassword by op', onepassword, () => {
  const op = new FakeOp()
  const id = op.add('api', shared(), more)
  const config = {
    vault: 'Production',
    item: 'api',
    token: op.state.token,
    create: true,
    program: op.path,
  }
  return {
    config,
    alias: { ...config, item: id },
    elsewhere: { ...config, connect: 'https://connect.example.com' },
    onlyTells: true,
    read: (name) => op.value('api', name),
    write: (name, value) => op.change(({ items }) => set(items[0], name, value)),
    between: (act) => op.meanwhile({ call: 'item edit', when: 'before' }, () => void act()),
    after: (act) => op.meanwhile({ call: 'item edit', when: 'after' }, () => void act()),
    whole: () => inspect({ ...op.item('api'), version: undefined }, { depth: 9, sorted: true }),
    secrets: [op.state.token],
    stop: () => Promise.resolve(op.remove()),
  }
})

documentSuite('onepassword by Connect', onepassword, async () => {
  const connect = await new FakeConnect().start()
  connect.add('api', shared(), more)
  connect.lag = 3
  const config = {
    vault: 'Production',
    item: 'api',
    token: connect.token,
    create: true,
    connect: connect.url,
  }
  return {
    config,
    elsewhere: { ...config, item: 'web' },
    read: (name) => connect.value('api', name),
    write: (name, value) => set(connect.items[0], name, value),
    between: (act) =>
      void connect.others.push({
        method: 'PATCH',
        path: /items/,
        when: 'before',
        act: () => void act(),
      }),
    after: (act) =>
      void connect.others.push({
        method: 'PATCH',
        path: /items/,
        when: 'after',
        act: () => void act(),
      }),
    whole: () => JSON.stringify({ ...connect.items[0], version: undefined }),
    secrets: [connect.token],
    stop: () => connect.stop(),
  }
})

test('a field that somebody takes away during a run comes back as the kind that it was, in its section', async () => {
  const connect = await new FakeConnect().start()
  try {
    connect.add('api', shared(), more)
    const session = await open({
      vault: 'Production',
      item: 'api',
      field: 'OURS',
      token: connect.token,
      create: true,
      connect: connect.url,
    })
    const stood = await session.standing?.(['API_KEY'])
    await session.put(delivery('new-value-1'))
    connect.items[0]?.fields.splice(1, 1)
    await session.restore(stood?.values, undefined, stood?.rest)
    const { id: _id, ...back } = connect.items[0]?.fields.at(-1) ?? { id: '' }
    expect(back).toEqual({ label: 'OURS', type: 'STRING', value: 'before', section: { id: 's1' } })
  } finally {
    await connect.stop()
  }
})

let context: TestContext
beforeEach(() => {
  context = testContext()
})
const open = (config: Record<string, unknown>): Promise<TargetSession> =>
  onepassword.open(parseConfig(onepassword.config, config as never, 'it'), context)
const failure = (call: Promise<unknown> | undefined): Promise<unknown> | undefined =>
  call?.catch((thrown: unknown) => thrown)

describe('by op', () => {
  let op: FakeOp
  beforeEach(() => {
    op = new FakeOp()
  })
  afterEach(() => op.remove())
  const config = (more: Record<string, unknown> = {}) => ({
    vault: 'Production',
    item: 'api',
    field: 'credential',
    token: op.state.token,
    program: op.path,
    ...more,
  })

  test('the value goes by a pipe and stands on no command line; everything else of the item stays', async () => {
    op.add(
      'api',
      [
        note,
        credential(),
        { id: 'x1', type: 'STRING', label: 'host', value: 'a.test', section: { id: 's1' } },
      ],
      {
        tags: ['team'],
        sections: [{ id: 's1', label: 'Extra' }],
        files: [{ id: 'f1', name: 'ca.pem' }],
      },
    )
    const before = op.item('api')
    const session = await open(config())
    await session.probe()
    await session.put(delivery('new "value" $1\n'))
    expect(op.item('api')).toEqual({
      ...before,
      version: 2,
      fields: before?.fields.map((field) =>
        field.id === 'credential' ? { ...field, value: 'new "value" $1\n' } : field,
      ),
    })
    const { calls, token } = op.state
    expect(calls.map(({ argv }) => argv.slice(0, 2).join(' '))).toEqual([
      'item list',
      'item get',
      'item get',
      'item edit',
      'item get',
    ])
    expectNoLeak(
      calls.map(({ argv }) => argv),
      ['new "value"', 'old-value-123', token],
    )
    // The environment of `op` holds its own credential, but neither the delivered value
    // nor anything else of this program's environment.
    for (const { env } of calls) {
      expect(
        Object.keys(env)
          .filter((name) => !/^(PATH|HOME|LANG|TZ|PWD|SHLVL|_|OLDPWD)$/.test(name))
          .toSorted(),
      ).toEqual(['OP_CACHE', 'OP_SERVICE_ACCOUNT_TOKEN'])
      expectNoLeak(env, ['new "value"', 'old-value-123'])
    }
    expect(context.notes).toEqual(['1Password: credential in api'])
  })

  test('a repetition writes nothing', async () => {
    op.add('api', [credential()])
    const session = await open(config())
    await session.put(delivery('new-value-1'))
    await session.put(delivery('new-value-1'))
    expect(op.item('api')?.version).toBe(2)
  })

  test('an edit that ends with 0 and does nothing is no success', async () => {
    op.add('api', [credential()])
    op.fail({ call: 'item edit', hollow: true })
    await expect((await open(config())).put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'bad-answer',
      effect: 'unknown',
    })
  })

  test('a look after the write that fails leaves open what the write did', async () => {
    op.add('api', [credential()])
    const session = await open(config())
    op.fail({ call: 'item get', stderr: '[ERROR] 429 Too Many Requests' })
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'throttled',
      effect: 'none',
      retryable: true,
    })
    op.fail({ call: 'item get', skip: 1, stderr: '[ERROR] 429 Too Many Requests' })
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'throttled',
      effect: 'unknown',
      retryable: true,
    })
    await session.restore({ API_KEY: new Secret('old-value-123') }, undefined)
    op.fail({ call: 'item edit', after: true, stderr: 'broken pipe' })
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'failed',
      effect: 'unknown',
    })
    expect(op.value('api', 'credential')).toBe('new-value-1')
    await session.restore({ API_KEY: new Secret('old-value-123') }, undefined)
    expect(op.value('api', 'credential')).toBe('old-value-123')
  })

  test('a field that only its section tells apart', async () => {
    const fields = ['s1', 's2'].map((id) => ({
      id: `f${id}`,
      type: 'CONCEALED',
      label: 'key.a=b',
      value: id,
      section: { id },
    }))
    const sections = [
      { id: 's1', label: 'Blue' },
      { id: 's2', label: 'Green' },
    ]
    op.add('api', fields, { sections })
    expect(await failure((await open(config({ field: 'key.a=b' }))).probe())).toBeUndefined()
    await expect(
      (await open(config({ field: 'key.a=b' }))).put(delivery('v')),
    ).rejects.toMatchObject({ code: 'misconfigured' })
    const session = await open(config({ field: 'key.a=b', section: 'Green', create: true }))
    await session.put(delivery('new-value-1'))
    expect(op.item('api')?.fields.map(({ value }) => value)).toEqual(['s1', 'new-value-1'])
    // The field is removed by its escaped name, and the one in the other section stays.
    await session.restore({ API_KEY: null }, undefined)
    expect(op.item('api')?.fields.map(({ value }) => value)).toEqual(['s1'])
  })

  test('an item is made only when asked for, and found again; an undo empties it', async () => {
    await expect((await open(config())).probe()).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    await expect(
      (await open(config({ create: true, item: 'a'.repeat(26) }))).probe(),
    ).rejects.toMatchObject({ code: 'misconfigured' })
    const session = await open(config({ create: true }))
    await session.probe()
    expect(await session.current?.(['API_KEY'])).toEqual({ API_KEY: null })
    op.fail({ call: 'item create', after: true, stderr: 'connection reset' })
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'failed',
      effect: 'unknown',
    })
    await session.put(delivery('new-value-1'))
    expect(op.state.items).toHaveLength(1)
    expect(op.value('api', 'credential')).toBe('new-value-1')
    await session.restore({ API_KEY: null }, undefined)
    expect(op.item('api')?.fields).toEqual([])
    expectNoLeak(op.argvs, ['new-value-1'])
  })

  test('without "create" nothing is made or taken away', async () => {
    op.add('api', [note])
    const session = await open(config())
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
    op.change(({ items }) => items[0]?.fields.push(credential('theirs')))
    await session.restore({ API_KEY: null }, undefined)
    expect(op.value('api', 'credential')).toBe('theirs')
    expect(op.argvs.some((argv) => argv.startsWith('item edit'))).toBe(false)
  })

  test('a field that was there without a value is emptied, not removed', async () => {
    op.add('api', [{ id: 'credential', type: 'CONCEALED', label: 'credential' }])
    const session = await open(config({ create: true }))
    const prior = await session.current?.(['API_KEY'])
    await session.put(delivery('new-value-1'))
    await session.restore(prior, undefined)
    expect(op.item('api')?.fields).toEqual([
      { id: 'credential', type: 'CONCEALED', label: 'credential', value: '' },
    ])
  })

  test('a passkey is not destroyed: a login is refused until somebody says that it has none', async () => {
    const login = op.add('api', [credential()], { category: 'LOGIN' })
    op.change(({ passkeys }) => void passkeys.push(login))
    const session = await open(config())
    await expect(session.probe()).rejects.toMatchObject({ code: 'misconfigured', effect: 'none' })
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'misconfigured',
    })
    expect(op.state.passkeys).toEqual([login])
    await (await open(config({ noPasskey: true }))).put(delivery('new-value-1'))
    expect(op.value('api', 'credential')).toBe('new-value-1')
  })

  test('an item that loses something with the change is reported', async () => {
    op.add('api', [
      credential(),
      { id: 'gone', type: 'CONCEALED', label: 'other', value: 'other-value-1' },
    ])
    op.change(({ loses }) => void loses.push('gone'))
    expect(await failure((await open(config())).put(delivery('new-value-1')))).toMatchObject({
      code: 'failed',
      effect: 'applied',
      retryable: false,
    })
  })

  test.each([
    ['the token is refused', { token: 'ops_wrong-token-99' }, { code: 'denied' }],
    ['the vault is not seen', { vault: 'Private' }, { code: 'misconfigured' }],
    ['the title is not unique', { item: 'twice' }, { code: 'misconfigured' }],
  ])('%s', async (_what, more, want) => {
    op.add('twice', [])
    op.add('twice', [])
    const error = await failure((await open(config(more))).probe())
    expect(error).toMatchObject({ ...want, effect: 'none' })
    expect((error as AdapterError).hints.join()).toMatch(/read_items and write_items|use its id/)
    expectNoLeak(error, ['ops_wrong-token-99', op.state.token])
  })

  test('a field that is not there and may not be made is found when it is asked what stands there', async () => {
    op.add('api', [credential()])
    const session = await open(config({ field: '{name}' }))
    expect(await failure(session.standing?.(['ELSE']) ?? Promise.resolve())).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringContaining('no field ELSE') as string,
      hints: [expect.stringContaining('"create": true')],
    })
    expect(await session.current?.(['ELSE'])).toEqual({ ELSE: null })
    expect(
      (await (await open(config({ field: '{name}', create: true }))).standing?.(['ELSE']))?.values,
    ).toEqual({ ELSE: null })
  })

  test('a token that may only read is told what it lacks, and nothing is changed', async () => {
    op.add('api', [credential()])
    op.change((state) => void (state.rights = 'read'))
    const error = await failure((await open(config())).put(delivery('new-value-1')))
    expect(error).toMatchObject({
      code: 'denied',
      effect: 'none',
      hints: [expect.stringContaining('write_items')],
    })
    expectNoLeak(error, ['new-value-1'])
  })

  test('values of the item that op prints do not show', async () => {
    op.add('api', [credential('old-value-123')])
    op.fail({ call: 'item edit', stderr: 'can not parse old-value-123 or new-value-1' })
    const error = await failure((await open(config())).put(delivery('new-value-1')))
    expect((error as AdapterError).message).toContain('can not parse [secret] or [secret]')
  })

  test('several values need {name}', async () => {
    op.add('api', [credential()])
    const entries = { A: new Secret('1'), B: new Secret('2') }
    await expect((await open(config())).put({ ...delivery('x'), entries })).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
  })
})

describe('by Connect', () => {
  let connect: FakeConnect
  beforeEach(async () => {
    connect = await new FakeConnect().start()
  })
  afterEach(() => connect.stop())
  const config = (more: Record<string, unknown> = {}) => ({
    vault: 'Production',
    item: 'api',
    field: 'credential',
    token: connect.token,
    connect: connect.url,
    ...more,
  })

  test('one field is patched by its id, and the server is waited for until it shows the value', async () => {
    connect.add('api', [note, { ...credential(), id: 'a/b~c', section: { id: 's1' } }], {
      category: 'LOGIN',
      sections: [{ id: 's1', label: 'Extra' }],
    })
    connect.lag = 7
    const session = await open(config({ section: 'Extra' }))
    await session.probe()
    await session.put(delivery('new-value-1'))
    expect(connect.patches).toEqual([
      [{ op: 'replace', path: '/fields/a~1b~0c/value', value: 'new-value-1' }],
    ])
    expect(connect.value('api', 'notesPlain')).toBe('kept by people')
    expect(context.clock.sleeps.length).toBeGreaterThan(0)
    expect((await session.current?.(['API_KEY']))?.['API_KEY']?.reveal()).toBe('new-value-1')
  })

  test('an undo is written although the server still shows the old value', async () => {
    connect.add('api', [credential()])
    connect.lag = 2
    connect.faults.push({ method: 'PATCH', path: /items/, status: 500, after: true })
    const session = await open(config())
    await session.put(delivery('new-value-1'))
    expect(connect.value('api', 'credential')).toBe('new-value-1')
    connect.lag = 0
    await session.restore({ API_KEY: new Secret('old-value-123') }, undefined)
    expect(connect.value('api', 'credential')).toBe('old-value-123')
    expect(connect.patches).toHaveLength(3)
  })

  test('a field without a value gets one; a value that never shows is no success', async () => {
    connect.add('api', [{ id: 'credential', type: 'CONCEALED', label: 'credential' }])
    const session = await open(config())
    await session.put(delivery('new-value-1'))
    expect(connect.patches[0]).toEqual([
      { op: 'add', path: '/fields/credential/value', value: 'new-value-1' },
    ])
    connect.lag = 1000
    await expect(session.put(delivery('new-value-2'))).rejects.toMatchObject({
      code: 'timeout',
      effect: 'unknown',
    })
  })

  test('adding a field is not repeated by the transport', async () => {
    connect.add('api', [note])
    connect.faults.push({ method: 'PATCH', path: /items/, status: 503, after: true })
    const session = await open(config({ create: true }))
    await expect(session.put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'unavailable',
      effect: 'unknown',
    })
    await session.put(delivery('new-value-1'))
    expect(connect.items[0]?.fields.filter(({ label }) => label === 'credential')).toHaveLength(1)
  })

  test('an item is made once', async () => {
    const session = await open(config({ create: true, section: 'Keys' }))
    connect.lag = 3
    await session.put(delivery('new-value-1'))
    await session.put(delivery('new-value-2'))
    expect(connect.items).toHaveLength(1)
    expect(connect.value('api', 'credential')).toBe('new-value-2')
  })

  test.each([
    ['the token is refused', { token: 'wrong-token-99' }, { code: 'denied' }],
    ['the vault is not seen', { vault: 'Private' }, { code: 'misconfigured' }],
    ['the item is not there', { item: 'nothing' }, { code: 'misconfigured' }],
  ])('%s', async (_what, more, want) => {
    const error = await failure((await open(config(more))).probe())
    expect(error).toMatchObject({ ...want, effect: 'none' })
    expectNoLeak(error, ['wrong-token-99', connect.token])
  })

  test('a token that may only read: denied, nothing changed', async () => {
    connect.add('api', [credential()])
    connect.rights = 'read'
    await expect((await open(config())).put(delivery('new-value-1'))).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
    })
    expect(connect.value('api', 'credential')).toBe('old-value-123')
  })
})

test.each([
  [{ vault: '-x' }, /vault/],
  [{ item: 'a\nb' }, /item/],
  [{ field: '--template=/etc/passwd' }, /field/],
  [{ field: 'a[delete]', create: true }, /brackets/],
  [{ connect: 'http://connect.example.com:8080' }, /connect/],
  [{ token: '' }, /token/],
])('the configuration %j is refused', (more, message) => {
  const config = { vault: 'v', item: 'i', token: 'hidden-token-1', ...more }
  const error = (() => {
    try {
      return parseConfig(onepassword.config, config as never, 'it')
    } catch (thrown) {
      return thrown
    }
  })()
  expect(String(error)).toMatch(message)
  expectNoLeak(error, ['hidden-token-1'])
})

test('the program is made absolute when set; with Connect there is none', async () => {
  const op = new FakeOp()
  const settle = (config: Record<string, unknown>) =>
    onepassword.settleConfig({ vault: 'v', item: 'i', token: 't', ...config }, testContext())
  expect(await settle({ program: op.path })).toMatchObject({ program: op.path })
  await expect(settle({ program: '/nowhere/op' })).rejects.toMatchObject({ code: 'misconfigured' })
  expect(await settle({ connect: 'https://connect.test' })).not.toHaveProperty('program')
  op.remove()
})
