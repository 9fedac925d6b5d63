import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  root: fileURLToPath(new URL('../..', import.meta.url)),
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/long/**'],
    pool: 'forks',
    // Vitest leaves one core to itself; most of these tests wait for programs that they
    // have started.
    maxWorkers: 2,
    // Most tests start whole programs; on two noisy cores a time limit must catch what
    // hangs, not what is slow.
    testTimeout: 120_000,
    hookTimeout: 180_000,
    restoreMocks: true,
  },
})
