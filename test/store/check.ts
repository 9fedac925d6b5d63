/**
 * Checks what must hold in a worker's directory after a crash, a kill or a failing disk.
 */
import { existsSync } from 'node:fs'
import { createVault, openVault, readKeyFile } from '../../src/vault/index.ts'
import { clock, commit, inspect, keyOf, look, randomFrom, stateOf, vaultOf } from './vaults.ts'

const random = randomFrom(99)

export interface Expected {
  /** The lines that the worker printed. */
  readonly said: readonly string[]
  /** The number of commits that were acknowledged before it began. */
  readonly before?: number
  /**
   * Whether the vault must also take a commit or, if it does not exist, can be made now.
   */
  readonly goOn: boolean
  /** Whether everything is verified, including the container. */
  readonly deep: boolean
}

/** The number of the last acknowledged commit. */
export function acknowledged({ said, before = 0 }: Pick<Expected, 'said' | 'before'>): number {
  return Number(said.findLast((line) => line.startsWith('commit '))?.slice(7) ?? before)
}

/** Returns what is wrong; an empty list if all is well. */
export async function wrongIn(directory: string, expected: Expected): Promise<readonly string[]> {
  const wrong: string[] = []
  const file = vaultOf(directory)
  const { said, before = 0, goOn, deep } = expected
  const least = acknowledged(expected)
  const stateDir = stateOf(directory)
  try {
    const keyExists = existsSync(keyOf(directory))
    if (said.includes('key') && !keyExists) wrong.push('the key file is lost')
    if (!existsSync(file)) {
      if (said.includes('vault') || before > 0) wrong.push('the vault is lost')
      if (!keyExists || !goOn) return wrong
      const key = await readKeyFile(keyOf(directory))
      const made = await createVault({
        file,
        clock,
        random,
        unlockers: [{ kind: 'key-file', key }],
        actor: 'test',
        stateDir,
      })
      made.close()
      return wrong
    }
    if (!keyExists) return ['a vault without its key file']
    const key = await readKeyFile(keyOf(directory))
    const open = () =>
      openVault({ file, unlock: { kind: 'key-file', key }, clock, random, stateDir })
    const vault = await open()
    const { count, wrong: unfit } = await look(vault)
    wrong.push(...unfit)
    if (count < least) wrong.push(`commit ${count} found, ${least} acknowledged`)
    if (count > least + 1) wrong.push(`commit ${count} found, only ${least} acknowledged`)
    if (
      count > least &&
      said.some((line) => line.startsWith('error') && line.includes('nothing changed'))
    )
      wrong.push('"nothing changed", and yet it did')
    if (deep) wrong.push(...(await inspect(vault)))
    if (goOn) await commit(vault, count + 1)
    vault.close()
    if (!goOn) return wrong
    const again = await open()
    const after = await look(again)
    wrong.push(...after.wrong)
    if (after.count !== count + 1) wrong.push('the next commit is lost')
    again.close()
    return wrong
  } catch (error) {
    return [...wrong, String(error)]
  }
}
