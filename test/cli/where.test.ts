import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Sandbox } from './program.ts'

let box: Sandbox
beforeAll(async () => {
  box = await new Sandbox().init()
})
afterAll(() => box.dispose())

/** What `where` says of each target. */
async function where(path: string): Promise<readonly unknown[]> {
  const { stdout, code } = await box.run(['where', path, '--json'])
  expect(code).toBe(0)
  return (JSON.parse(stdout) as { data: { targets: unknown[] } }).data.targets
}

test('each target says which version it holds, by fingerprint and without showing a value', async () => {
  const file = box.path('app.env')
  const targets = [
    ['--target', JSON.stringify({ type: 'env-file', path: file, name: 'TOKEN' })],
    ['--target', JSON.stringify({ type: 'exec', run: ['/bin/cat'] })],
  ].flat()
  const set = await box.run([
    'schedule',
    'set',
    'app/TOKEN',
    '--provider',
    'generated',
    '--interval',
    '30',
    ...targets,
  ])
  expect(set.code, set.stderr).toBe(0)
  expect(await where('app/TOKEN')).toEqual([
    { name: 'env-file', version: null, state: 'absent' },
    { name: 'exec', version: null, state: 'unknown' },
  ])
  await box.run(['now', 'app/TOKEN'])
  const first = (await box.run(['get', 'app/TOKEN'])).stdout.trimEnd()
  expect(await where('app/TOKEN')).toEqual([
    { name: 'env-file', version: 1, state: 'current' },
    { name: 'exec', version: 1, state: 'delivered' },
  ])
  await box.run(['now', 'app/TOKEN'])
  writeFileSync(file, `TOKEN=${first}\n`)
  expect(await where('app/TOKEN')).toMatchObject([{ version: 1, state: 'old' }, { version: 2 }])
  writeFileSync(file, 'TOKEN=somebody-elses\n')
  expect(await where('app/TOKEN')).toMatchObject([
    { version: null, state: 'other' },
    { version: 2 },
  ])
})
