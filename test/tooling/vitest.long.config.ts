/** Tests that download what they need, or that take many minutes: `npm run test:long`. */
import { defineConfig } from 'vitest/config'
import base from './vitest.config.ts'

export default defineConfig({
  ...base,
  test: {
    ...base.test,
    include: ['test/long/**/*.test.ts'],
    exclude: [],
    testTimeout: 600_000,
    hookTimeout: 900_000,
  },
})
