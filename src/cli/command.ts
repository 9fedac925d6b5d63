/**
 * What a command is: what its module exports, what its handler is given, and how it ends.
 *
 * HOW TO ADD A COMMAND
 *
 * 1. Write `src/cli/commands/<name>.ts`:
 *
 *        import type { Register } from '../command.ts'
 *        import { finish } from '../finish.ts'
 *
 *        interface Options { readonly grace?: string }
 *
 *        export const rollback: Register = (parent, run) => {
 *          parent
 *            .command('rollback')
 *            .helpGroup('Rotation:')
 *            .summary('make the old value current again')
 *            .description('…, examples last')
 *            .argument('<path>', 'which secret')
 *            .option('--grace <duration>', 'how long the replaced value stays alive')
 *            .action(
 *              run(async (ctx, path: string, options: Options) => {
 *                const { rollBack } = await import('../../app/rollback.ts')
 *                const result = await rollBack(await ctx.deps(), parsePath(path))
 *                ctx.out.data(toRun(result))
 *                ctx.out.line(`${result.path} version ${result.version}`)
 *                await finish(ctx, result.failure)
 *              }, { graceful: true }),
 *            )
 *        }
 *
 * 2. Add it to the list in `commands/index.ts`. A group (`schedule set`, `schedule list`
 *    …) is one `Register` that makes `const group = parent.command('schedule')` and
 *    registers on it; its name stands in `groups` of `aliases.ts`.
 *
 * 3. Give the `data` of `--json` a schema in test/contract.
 *
 * Loading: every start of the program loads all command modules. Whatever is heavy (use
 * cases, adapters, tables) is therefore imported inside of the handler, and the context
 * loads the vault when `ctx.deps()` is called first.
 *
 * Handler: it is given the context and what commander hands to an action, which is the
 * arguments in order and then the options. Global options are added to every command by
 * the parser and are found in `ctx.globals`; a command that defines an option of the same
 * name keeps its own. Repeating an option with another value is refused unless the option
 * has `collect` of options.ts as its parser: a variadic `<x...>` would swallow the path
 * behind it.
 *
 * Output: `ctx.out.data` is the document of `--json`, `ctx.out.line` is the result for
 * people on stdout, `ctx.out.note` is progress on stderr.
 *
 * End: a handler returns nothing, returns an exit code, or throws. Every failure is a
 * `RotateError`, whose name decides the exit code. A command that reports what it did
 * prints its data first and throws afterwards. A command that may have queued notices
 * ends with `finish`, which sends them before the failure is thrown.
 */
import type { Command } from 'commander'
import type { Context } from './context.ts'

interface RunOptions {
  /**
   * A signal must not end the command at once: the command watches `ctx.signal` itself
   * and stops at a safe point.
   */
  readonly graceful?: boolean
  /**
   * A reader that leaves early is an error (74), because what it got may be a secret that
   * was cut short.
   */
  readonly valueOutput?: boolean
}

/** Turns a handler into an action of commander. */
export type Run = <A extends unknown[]>(
  handler: (context: Context, ...args: A) => Promise<number | void>,
  options?: RunOptions,
) => (...args: [...A, Command]) => Promise<void>

/** Registers one command, or one group, on its parent. */
export type Register = (parent: Command, run: Run) => void
