/** AWS access keys: proofs of life and of death under eventual consistency. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { MINUTE, SECOND } from '../../src/core/duration.ts'
import { FakeAws, type FakeKey } from '../fakes/aws.ts'
import {
  AwsWorld,
  credential,
  failure,
  issuedCredential,
  type AwsContext,
} from '../fakes/aws-context.ts'

let world: AwsWorld
let fake: FakeAws
let context: AwsContext
let old: FakeKey
beforeEach(async () => {
  world = await AwsWorld.start()
  ;({ fake, context, old } = world)
})
afterEach(() => fake.close())
describe('verify', () => {
  test('live: three answers in a row, quickly when none is refused', async () => {
    const { session, issued } = await world.rotated()
    const start = context.clock.now()
    await session.verify?.(issuedCredential(issued), 'live')
    expect(context.clock.now() - start).toBe(SECOND)
    expect(fake.calls.filter((call) => call.key === issued.handle?.id)).toHaveLength(3)
    expect(context.notes).toEqual([])
  })

  test('live: waits for propagation, then for three in a row two seconds apart', async () => {
    fake.settings.propagationCalls = 4
    const { session, issued } = await world.rotated()
    const start = context.clock.now()
    await session.verify?.(issuedCredential(issued), 'live')
    expect(context.clock.now() - start).toBe((4 + 2) * 2 * SECOND)
    expect(context.notes).toHaveLength(1)
  })

  test('live: one acceptance between refusals is not enough', async () => {
    const { session, issued } = await world.rotated()
    const key = issued.handle?.id ?? ''
    fake.fault({
      action: 'GetCallerIdentity',
      kind: 'error-before',
      status: 403,
      code: 'InvalidClientTokenId',
      skip: 2,
      key,
    })
    await session.verify?.(issuedCredential(issued), 'live')
    expect(fake.calls.filter((call) => call.key === key)).toHaveLength(2 + 1 + 3)
  })

  test('live: gives up after a minute', async () => {
    const session = await world.open()
    const start = context.clock.now()
    fake.keys.delete(old.id)
    expect(await failure(session.verify?.(credential(old), 'live'))).toMatchObject({
      code: 'refused',
    })
    expect(context.clock.now() - start).toBeGreaterThanOrEqual(58 * SECOND)
    expect(context.clock.now() - start).toBeLessThanOrEqual(60 * SECOND)
  })

  test('dead: waits until the deletion is known everywhere', async () => {
    fake.settings.deathLag = 5
    const session = await world.open()
    await session.revoke?.(credential(old))
    const start = context.clock.now()
    expect(await failure(session.verify?.(credential(old), 'dead'))).toMatchObject({
      code: 'refused',
    })
    expect(context.clock.now() - start).toBe(10 * SECOND)
  })

  test('dead: resolves when the key still works after a minute', async () => {
    const start = context.clock.now()
    await (await world.open()).verify?.(credential(old), 'dead')
    expect(context.clock.now() - start).toBe(60 * SECOND)
  })

  test('dead: a wrong secret proves nothing, for AWS still knows the key', async () => {
    const error = await failure(
      (await world.open()).verify?.(credential({ ...old, secret: 'wrong' }), 'dead'),
    )
    expect(error).toMatchObject({ code: 'failed' })
    expect(error.message).toContain('still knows the key')
  })

  test.for(['live', 'dead'] as const)(
    '%s: trouble on the way is not an answer',
    async (expected) => {
      const session = await world.open()
      for (const [fault, code] of [
        [{ kind: 'error-before', times: 9 }, 'unavailable'],
        [{ kind: 'drop-before', times: 9 }, 'unavailable'],
        [{ kind: 'error-before', times: 9, status: 400, code: 'Throttling' }, 'throttled'],
        [{ kind: 'error-before', status: 403, code: 'AccessDenied' }, 'denied'],
        [{ kind: 'garble-after', status: 200, body: 'hm' }, 'bad-answer'],
      ] as const) {
        fake.fault({ action: 'GetCallerIdentity', ...fault })
        expect(await failure(session.verify?.(credential(old), expected))).toMatchObject({ code })
        fake.clearFaults()
      }
      for (const offset of [6 * MINUTE, -6 * MINUTE]) {
        fake.settings.clockOffsetMs = offset
        const error = await failure(session.verify?.(credential(old), expected))
        expect(error).toMatchObject({ code: 'misconfigured' })
        expect(error.hints.join()).toContain('clock')
      }
    },
  )

  test('live: a key that works but is not of this user or account', async () => {
    fake.addUser('eve', { path: '/team/' })
    const session = await world.open()
    expect(
      (await failure(session.verify?.(credential(fake.addKey('eve')), 'live'))).message,
    ).toContain(':user/team/eve')
    fake.addUser('bob', { account: '999999999999' })
    const error = await failure((await world.open()).verify?.(credential(old), 'live'))
    expect(error).toMatchObject({ code: 'misconfigured' })
    expect(error.message).toMatch(
      /belongs to account 999999999999, the configured credential to 123456789012/,
    )
  })

  test('live: where STS does not know the configured credential, the account is not compared', async () => {
    const elsewhere = await FakeAws.start({ account: '999999999999' })
    elsewhere.addUser('bob')
    await (
      await world.open({ stsEndpoint: elsewhere.url })
    ).verify?.(credential(elsewhere.addKey('bob')), 'live')
    await elsewhere.close()
  })

  test('a user in a path, in other letters, is the same user', async () => {
    fake.addUser('Carol', { path: '/a/b/' })
    await (
      await world.open({ iamUserName: 'carol' })
    ).verify?.(credential(fake.addKey('Carol')), 'live')
  })
})
