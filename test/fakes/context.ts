/**
 * What an adapter is given in tests: the production HTTP client and process runner, with
 * a clock and a random source that can be predicted.
 */
import type { AdapterContext } from '../../src/core/provider.ts'
import { createHttp } from '../../src/net/http.ts'
import { createSpawn } from '../../src/net/spawn.ts'
import { ManualClock, seededRandom } from './clock.ts'

export interface TestContext extends AdapterContext {
  readonly clock: ManualClock
  readonly notes: string[]
}

/** A context for one test, of which anything may be replaced. */
export function testContext(over: Partial<AdapterContext> = {}): TestContext {
  const clock = new ManualClock()
  const random = seededRandom()
  const notes: string[] = []
  return {
    random,
    http: createHttp({ clock, random }),
    spawn: createSpawn({
      path: process.env['PATH'] ?? '',
      cwd: process.cwd(),
      home: process.env['HOME'],
    }),
    signal: new AbortController().signal,
    path: 'production/app/API_KEY',
    vaultTag: 'testtag1',
    note: (message) => notes.push(message),
    ...over,
    clock,
    notes,
  }
}
