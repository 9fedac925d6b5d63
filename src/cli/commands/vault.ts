/** The group `vault`: the file as a whole. */
import type { Register } from '../command.ts'
import { addFileCommands } from './vault-file.ts'
import { addRekey } from './vault-rekey.ts'

export const vault: Register = (parent, run) => {
  const group = parent
    .command('vault')
    .helpGroup('Start:')
    .summary('the vault file as a whole')
    .description('Looks after the vault file as a whole.')
  addFileCommands(group, run)
  addRekey(group, run)
}
