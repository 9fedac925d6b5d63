/**
 * The cases of the conformance suite that no program can reach through `exec`, tested
 * with a provider in memory.
 */
import { describe, expect, test } from 'vitest'
import { AdapterError } from '../../src/core/errors.ts'
import type { Handle, Intent } from '../../src/core/model.ts'
import type {
  Credential,
  Issued,
  ProviderSession,
  Settlement,
  Traits,
} from '../../src/core/provider.ts'
import { Secret } from '../../src/core/secret.ts'
import { runSuite } from '../../src/app/adapters/suite/suite.ts'
import { Wire } from '../../src/app/adapters/suite/wire.ts'
import { ManualClock, seededRandom } from '../fakes/clock.ts'
import { testContext } from '../fakes/context.ts'

const traits: Traits = {
  mints: 'service',
  overlap: 'two-live',
  maxLive: 2,
  fields: ['id', 'token'],
  idempotency: 'named',
  revoke: 'delete',
  suspend: true,
  lastUsed: false,
}

interface Key {
  readonly intent: string
  readonly id: string
  readonly token: string
  state: 'live' | 'off' | 'gone'
}

/** A provider in memory that can list and suspend keys and issues two fields. */
class Memory implements ProviderSession {
  readonly keys: Key[] = []
  readonly notes: string[] = []

  preflight(): Promise<void> {
    return Promise.resolve()
  }

  list(): Promise<readonly Handle[]> {
    return Promise.resolve(
      this.keys
        .filter(({ state }) => state !== 'gone')
        .map(({ id, state }) => ({ id, live: state === 'live' })),
    )
  }

  create(intent: Intent): Promise<Issued> {
    let key = this.keys.find((one) => one.intent === intent.tag)
    if (key === undefined) {
      key = {
        intent: intent.tag,
        id: `k-${this.keys.length}`,
        token: `token-${this.keys.length}-0123456789`,
        state: 'live',
      }
      this.keys.push(key)
    }
    return Promise.resolve(this.issued(key))
  }

  settle(intent: Intent): Promise<Settlement> {
    const key = this.keys.find((one) => one.intent === intent.tag)
    return Promise.resolve(
      key === undefined
        ? { outcome: 'none', detail: '' }
        : { outcome: 'applied', issued: this.issued(key), detail: '' },
    )
  }

  verify(credential: Credential): Promise<void> {
    const live = this.keys.some(
      ({ state, token }) => state === 'live' && token === credential.fields['token']?.reveal(),
    )
    return live ? Promise.resolve() : Promise.reject(new AdapterError('refused', 'no'))
  }

  suspend(credential: Credential): Promise<void> {
    return this.turn(credential, 'off')
  }

  resume(credential: Credential): Promise<void> {
    return this.turn(credential, 'live')
  }

  revoke(credential: Credential): Promise<void> {
    return this.turn(credential, 'gone')
  }

  close(): Promise<void> {
    return Promise.resolve()
  }

  issued({ id, token }: Key): Issued {
    return { fields: { id: new Secret(id), token: new Secret(token) }, handle: { id, live: true } }
  }

  protected turn({ handle }: Credential, state: Key['state']): Promise<void> {
    for (const key of this.keys) if (key.id === handle?.id) key.state = state
    return Promise.resolve()
  }
}

async function suite(memory: Memory, over: Partial<Traits> = {}) {
  const report = await runSuite({
    type: 'memory',
    traits: { ...traits, ...over },
    open: () => Promise.resolve(memory),
    wire: new Wire(testContext().spawn),
    json: true,
    shared: false,
    notes: memory.notes,
    clock: new ManualClock(),
    random: seededRandom(),
    signal: new AbortController().signal,
    began: () => undefined,
  })
  return { ...report, red: report.checks.filter(({ ok }) => !ok).map(({ name }) => name) }
}

test('what is promised and kept is green', async () => {
  const memory = new Memory()
  const { red, left, checks } = await suite(memory)
  expect({ red, left }).toEqual({ red: [], left: [] })
  expect(checks.filter(({ status }) => status === 'skipped').map(({ name }) => name)).toEqual([
    'unknown event',
    'stopped',
  ])
  expect(memory.keys.every(({ state }) => state === 'gone')).toBe(true)
})

describe('what is broken turns one case red', () => {
  const faults: readonly [string, string, Memory, number][] = [
    [
      'lists nothing',
      'list',
      new (class extends Memory {
        override list = () => Promise.resolve([])
      })(),
      0,
    ],
    [
      'suspends nothing',
      'suspend',
      new (class extends Memory {
        override suspend = () => Promise.resolve()
      })(),
      0,
    ],
    [
      'does not switch on again',
      'suspend',
      new (class extends Memory {
        override resume = () => Promise.resolve()
      })(),
      0,
    ],
    [
      'looks at the id only',
      'verify: wrong value',
      new (class extends Memory {
        override verify({ fields }: Credential): Promise<void> {
          const live = this.keys.some(
            ({ state, id }) => state === 'live' && id === fields['id']?.reveal(),
          )
          return live ? Promise.resolve() : Promise.reject(new AdapterError('refused', 'no'))
        }
      })(),
      0,
    ],
    [
      'lacks a field',
      'create',
      new (class extends Memory {
        override issued(key: Key): Issued {
          const { id, ...fields } = super.issued(key).fields
          return { fields, handle: { id: id?.reveal() ?? '', live: true } }
        }
      })(),
      0,
    ],
    [
      'a value in a note',
      'no value in sight',
      new (class extends Memory {
        override create(intent: Intent): Promise<Issued> {
          this.notes.push(`made token-${this.keys.length}-0123456789`)
          return super.create(intent)
        }
      })(),
      0,
    ],
    [
      'can end one only',
      'clean-up',
      new (class extends Memory {
        protected override turn(credential: Credential, state: Key['state']): Promise<void> {
          const other = state === 'gone' && credential.handle?.id === 'k-0'
          return other
            ? Promise.reject(new AdapterError('unavailable', 'not now'))
            : super.turn(credential, state)
        }
      })(),
      1,
    ],
  ]
  test.each(faults)('%s: %s', async (_what, name, memory, left) => {
    const report = await suite(memory)
    expect(report.red, JSON.stringify(report.checks)).toEqual([name])
    expect(report.left).toHaveLength(left)
    expect(JSON.stringify(report)).not.toMatch(/token-\d-/)
  })

  test('a lost answer that is a stray is ended by its handle', async () => {
    const memory = new (class extends Memory {
      override async create(intent: Intent): Promise<Issued> {
        await super.create(intent)
        throw new AdapterError('timeout', 'no answer', { effect: 'unknown' })
      }
      override settle(): Promise<Settlement> {
        return Promise.resolve({
          outcome: 'stray',
          handles: [{ id: 'k-0', live: true }],
          detail: '',
        })
      }
    })()
    expect(await suite(memory)).toMatchObject({ red: ['create'], left: [] })
    expect(memory.keys.map(({ state }) => state)).toEqual(['gone'])
  })
})
