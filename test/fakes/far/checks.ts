/** Fake checks. */
import { z } from 'zod'
import { defineCheck } from '../../../src/core/target.ts'
import { stageOf } from './stage.ts'

/** Presents the value to the provider; a test may make it red. */
export const fakeCheck = defineCheck({
  id: 'fake-check',
  title: 'Fake check',
  config: z.strictObject({ side: z.string() }),
  presents: () => true,
  describe: (config) => config.side,
  run: async (config, fields, context) => {
    const stage = stageOf(context.clock)
    const side = stage.side(config.side)
    const ok = await side.call(
      stage,
      config.side,
      'check',
      'read',
      () => side.accepts(fields) && !stage.red('fake-check', fields),
    )
    return { ok, detail: ok ? '200' : '500' }
  },
})

/** A sign of life, which says nothing about the value. */
export const fakeLife = defineCheck({
  id: 'fake-life',
  title: 'Fake sign of life',
  config: z.strictObject({}),
  presents: () => false,
  describe: () => 'life',
  run: (_config, fields, context) => {
    const ok = !stageOf(context.clock).red('fake-life', fields)
    return Promise.resolve({ ok, detail: ok ? 'up' : 'down' })
  },
})
