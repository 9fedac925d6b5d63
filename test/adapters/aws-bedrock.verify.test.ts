/**
 * Bedrock keys: proofs of life and of death. A dead key and a living one without rights
 * get the same status, and the texts of the answers are not documented.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY, SECOND } from '../../src/core/duration.ts'
import { Secret, single } from '../../src/core/secret.ts'
import type { FakeBearer } from '../fakes/aws-bedrock.ts'
import { type AwsContext, failure, issuedCredential } from '../fakes/aws-context.ts'
import type { FakeAws } from '../fakes/aws.ts'
import { BedrockWorld, credential } from '../fakes/bedrock-context.ts'
import { START } from '../fakes/clock.ts'

let world: BedrockWorld
let fake: FakeAws
let context: AwsContext
let old: FakeBearer
beforeEach(async () => {
  world = await BedrockWorld.start()
  ;({ fake, context, old } = world)
})
afterEach(() => fake.close())
describe('verify', () => {
  const asked = (): number => fake.count('ListFoundationModels')

  test('live: three answers in a row, and more pauses while the key is not known everywhere', async () => {
    const quick = await world.rotated()
    await quick.session.verify?.(issuedCredential(quick.issued), 'live')
    expect([asked(), context.clock.now() - START]).toEqual([3, SECOND])
    await quick.session.revoke?.(issuedCredential(quick.issued))
    fake.settings.propagationCalls = 4
    const slow = await world.rotated()
    const start = context.clock.now()
    await slow.session.verify?.(issuedCredential(slow.issued), 'live')
    expect(context.clock.now() - start).toBe((4 + 2) * 2 * SECOND)
    expect(context.notes).toHaveLength(1)
  })

  test('live: one acceptance between refusals is not enough', async () => {
    fake.fault({
      action: 'ListFoundationModels',
      kind: 'error-before',
      status: 403,
      message: 'Authentication failed',
      skip: 2,
    })
    await (await world.open()).verify?.(credential(old), 'live')
    expect(asked()).toBe(2 + 1 + 3)
  })

  test('live: a dead key is refused after a minute', async () => {
    fake.bedrock.keys.delete(old.id)
    expect(await failure((await world.open()).verify?.(credential(old), 'live'))).toMatchObject({
      code: 'refused',
    })
    expect(context.clock.now() - START).toBeGreaterThanOrEqual(58 * SECOND)
    expect(context.clock.now() - START).toBeLessThanOrEqual(60 * SECOND)
  })

  test('live: a key that may not list models lives; a barred user is denied, naming the right', async () => {
    fake.denied.add('ListFoundationModels')
    await (await world.open()).verify?.(credential(old), 'live')
    fake.denied.add('CallWithBearerToken')
    const error = await failure((await world.open()).verify?.(credential(old), 'live'))
    expect(error).toMatchObject({ code: 'denied' })
    expect(error.hints.join()).toContain('bob bedrock:CallWithBearerToken')
    await (await world.open()).verify?.(credential(old), 'dead')
  })

  test('live: a 403 that says nothing is neither life nor death', async () => {
    fake.bedrock.wording = 'none'
    fake.denied.add('ListFoundationModels')
    const error = await failure((await world.open()).verify?.(credential(old), 'live'))
    expect(error).toMatchObject({ code: 'denied' })
    expect(error.message).toContain('does not say why')
  })

  test('the key of another user is never taken for ours', async () => {
    fake.addUser('eve')
    fake.denied.add('ListFoundationModels')
    for (const expected of ['live', 'dead'] as const) {
      const error = await failure(
        (await world.open()).verify?.(credential(fake.bedrock.addKey('eve')), expected),
      )
      expect(error).toMatchObject({ code: 'misconfigured' })
      expect(error.message).toContain(':user/eve, not to IAM user bob')
    }
  })

  test('dead: waits until the deletion is known; resolves when the key works after a minute', async () => {
    fake.settings.deathLag = 5
    const session = await world.open()
    await session.verify?.(credential(old), 'dead')
    expect(context.clock.now() - START).toBe(60 * SECOND)
    await session.revoke?.(credential(old))
    const start = context.clock.now()
    expect(await failure(session.verify?.(credential(old), 'dead'))).toMatchObject({
      code: 'refused',
    })
    expect(context.clock.now() - start).toBe(10 * SECOND)
  })

  test.for(['seen', 'none'] as const)(
    'dead: what Bedrock refuses (wording %s) and IAM has as active is no proof',
    async (wording) => {
      fake.bedrock.wording = wording
      const wrong = { ...credential(old), fields: single(new Secret('ABSKsomethingelse')) }
      const error = await failure((await world.open()).verify?.(wrong, 'dead'))
      expect(error).toMatchObject({ code: 'failed' })
      expect(error.message).toContain('IAM still lists the key as active')
    },
  )

  test('dead: without an id only a plain word of Bedrock counts', async () => {
    const nameless = { fields: single(new Secret('ABSKsomethingelse')) }
    expect(await failure((await world.open()).verify?.(nameless, 'dead'))).toMatchObject({
      code: 'refused',
    })
    fake.bedrock.wording = 'none'
    expect(await failure((await world.open()).verify?.(nameless, 'dead'))).toMatchObject({
      code: 'failed',
    })
  })

  test('dead: a key past its end is dead, although nobody deleted it', async () => {
    context.clock.advance(6 * DAY)
    expect(await failure((await world.open()).verify?.(credential(old), 'dead'))).toMatchObject({
      code: 'refused',
    })
    expect((await (await world.open()).list?.())?.map(({ live }) => live)).toEqual([false])
  })

  test('dead: a list that is refused proves nothing', async () => {
    const session = await world.open()
    await session.revoke?.(credential(old))
    fake.denied.add('ListServiceSpecificCredentials')
    expect(await failure(session.verify?.(credential(old), 'dead'))).toMatchObject({
      code: 'denied',
    })
  })

  test.for(['live', 'dead'] as const)(
    '%s: trouble on the way is not an answer, and shows no secret',
    async (expected) => {
      const session = await world.open()
      for (const [fault, code] of [
        [{ kind: 'error-before', times: 9, status: 500 }, 'unavailable'],
        [{ kind: 'error-before', times: 9, status: 429 }, 'throttled'],
        [{ kind: 'error-before', status: 404 }, 'failed'],
        [{ kind: 'drop-before', times: 9 }, 'unavailable'],
      ] as const) {
        fake.fault({ action: 'ListFoundationModels', ...fault })
        const error = await failure(session.verify?.(credential(old), expected))
        expect(error).toMatchObject({ code })
        world.expectNoSecret(error)
        fake.clearFaults()
      }
    },
  )

  test('an answer that quotes the key does not show it', async () => {
    fake.fault({
      action: 'ListFoundationModels',
      kind: 'error-before',
      status: 403,
      message: `Authentication failed: ${old.secret}`,
      times: 99,
    })
    const error = await failure((await world.open()).verify?.(credential(old), 'live'))
    expect(error).toMatchObject({ code: 'refused' })
    world.expectNoSecret(error)
  })

  test('a value that fits into no header is named before anything is sent', async () => {
    const error = await failure(
      (await world.open()).verify?.({ fields: single(new Secret('CANARY\nvalue')) }, 'live'),
    )
    expect(error).toMatchObject({ code: 'misconfigured' })
    expect(error.message).not.toContain('CANARY')
    expect(fake.calls).toEqual([])
  })
})
