/** `vault rekey`. */
import type { Command } from 'commander'
import type { Run } from '../command.ts'

/** Adds the sub-command to the group `vault`. */
export function addRekey(group: Command, run: Run): void {
  group
    .command('rekey')
    .summary('give the vault a new root key')
    .description(
      'Gives the vault a new root key and seals everything under it, while others go on ' +
        'reading and writing. All unlockers keep working.\n' +
        'It can be interrupted at any time: the next command that writes, run-due or another ' +
        'rekey goes on with it.',
    )
    .action(
      run(
        async (ctx) => {
          const deps = await ctx.deps()
          const { rekeyVault } = await import('../../app/vault/unlockers.ts')
          if (ctx.globals.dryRun) {
            ctx.out.note(
              deps.vault.rekeying
                ? 'dry run: would finish the rekey that was interrupted'
                : 'dry run: would install a new root key',
            )
            return
          }
          let shown = 0
          const result = await rekeyVault(deps, ({ share }) => {
            const tenth = Math.floor(share * 10)
            if (tenth === shown || tenth === 10) return
            shown = tenth
            ctx.out.note(`sealed anew: ${tenth * 10} %`)
          })
          ctx.out.data(result)
          ctx.out.line(
            `${result.resumed ? 'an interrupted rekey was finished' : 'rekeyed'}: key epoch ` +
              `${result.epoch}, ${result.rows} rows sealed anew`,
          )
        },
        { graceful: true },
      ),
    )
}
