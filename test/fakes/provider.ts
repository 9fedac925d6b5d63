/**
 * Far sides with state, for tests of the engine: a provider of every kind, targets, and
 * checks. Importing this file puts them into the registries under `fake-…`, so that their
 * configuration goes the same way as for a real adapter.
 */
import { registry as checks } from '../../src/checks/index.ts'
import { type Fields, flatten } from '../../src/core/secret.ts'
import { registry as providers } from '../../src/providers/index.ts'
import { registry as targets } from '../../src/targets/index.ts'
import { fakeCheck, fakeLife } from './far/checks.ts'
import { allKinds, providerOf } from './far/kinds.ts'
import { fakeProvider } from './far/provider.ts'
import { fakeTarget } from './far/target.ts'

export { type FakeKey, FarSide, type SideDump } from './far/far-side.ts'
export { FarTarget } from './far/far-target.ts'
export { type Kind, kinds, providerOf, traitsOf } from './far/kinds.ts'
export { stages } from './far/stage.ts'
export { fakeTarget } from './far/target.ts'

/** The value of some fields as one text, for comparing. */
export const textOf = (fields: Fields): string => flatten(fields).reveal()

function register<T>(registry: object, id: string, adapter: T): void {
  Object.assign(registry, {
    [id]: { title: id, load: () => Promise.resolve({ default: adapter }) },
  })
}

for (const kind of allKinds) register(providers, providerOf(kind), fakeProvider(kind))
for (const kind of ['readable', 'blind', 'hidden'] as const)
  register(targets, `fake-${kind}`, fakeTarget(kind))
register(checks, fakeCheck.id, fakeCheck)
register(checks, fakeLife.id, fakeLife)
