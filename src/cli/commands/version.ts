import type { Register } from '../command.ts'

export const version: Register = (parent, run) => {
  parent
    .command('version')
    .helpGroup('Start:')
    .summary('version of rotate and of what it runs on')
    .description('Version of rotate and of what it runs on. Needs no vault.')
    .action(
      run(async (ctx) => {
        ctx.out.data({
          version: ctx.host.version,
          node: process.versions.node,
          platform: `${process.platform}-${process.arch}`,
        })
        ctx.out.line(
          `rotate ${ctx.host.version}  (node ${process.versions.node}, ` +
            `${process.platform}-${process.arch})`,
        )
      }),
    )
}
