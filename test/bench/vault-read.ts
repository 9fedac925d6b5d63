/**
 * Times one verified read, from the key file to the value:
 * `vault-read.ts <directory> [times]`. Prints the median milliseconds, without the first
 * reads, which warm up.
 */
import { readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { openVault, readKeyFile } from '../../src/vault/index.ts'
import { systemClock as clock, systemRandom as random } from '../../src/system.ts'
import type { Plan } from './vault-floor.ts'

const [, , directory = '', count = '1'] = process.argv
const plan = JSON.parse(readFileSync(join(directory, 'plan.json'), 'utf8')) as Plan

async function vault(): Promise<void> {
  const unlock = { kind: 'key-file', key: await readKeyFile(plan.keyFile) } as const
  const open = await openVault({ file: plan.file, unlock, clock, random, readonly: true })
  const value = await open.read(async (reader) =>
    reader.value((await reader.resolve(plan.path))?.id ?? '', 1),
  )
  open.close()
  if (value?.['value']?.reveal() !== plan.value) throw new Error('not the value that was stored')
}

const taken: number[] = []
for (let i = 0; i < Number(count); i++) {
  const before = performance.now()
  await vault()
  taken.push(performance.now() - before)
}
const later = taken.slice(Math.floor(taken.length / 5)).sort((a, b) => a - b)
writeSync(1, `${later[later.length >> 1]}\n`)
