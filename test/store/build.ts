/** Shared by the storage tests: the size of a run, and the bundled worker. */
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildSync } from 'esbuild'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Whether to test everything instead of a sample, as `npm run crash:store` does. */
export const everything = process.env['STORE_ALL'] === '1'

/** Takes every n-th item, so that about `count` remain; the long run takes all. */
export function sample<T>(items: readonly T[], count: number, from = 0): readonly T[] {
  if (everything || items.length <= count) return items
  const step = items.length / count
  return Array.from(
    { length: count },
    (_, i) => items[Math.floor(from + i * step) % items.length] as T,
  )
}

/**
 * Bundles the worker into one file, which starts three times as fast as its sources. It
 * lies below node_modules, so that it finds its packages.
 */
export function buildWorker(name = 'worker'): {
  readonly worker: string
  readonly remove: () => void
} {
  const directory = mkdtempSync(join(root, 'node_modules/.store-test-'))
  const worker = join(directory, 'worker.mjs')
  buildSync({
    absWorkingDir: root,
    entryPoints: [`test/store/${name}.ts`],
    outfile: worker,
    bundle: true,
    platform: 'node',
    format: 'esm',
    packages: 'external',
    logLevel: 'error',
  })
  return { worker, remove: () => rmSync(directory, { recursive: true, force: true }) }
}
