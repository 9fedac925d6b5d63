/** The end of every command that may have queued notices. */
import { RotateError } from '../core/errors.ts'
import type { Context } from './context.ts'

/**
 * Sends the notices that this command has queued, and then throws its failure, if there
 * is one. Called when the result is on the screen, and it changes nothing about that
 * result: a notifier that is down is a warning, and only a vault that fails is an error.
 * Reads one document and does nothing more where there is no notifier.
 */
export async function finish(ctx: Context, failure: RotateError | undefined): Promise<void> {
  const { flush } = await import('../app/notices/notices.ts')
  try {
    await flush(await ctx.deps(), true)
  } catch (thrown) {
    if (!(thrown instanceof RotateError) || ['tampered', 'interrupted'].includes(thrown.code))
      throw thrown
    ctx.out.warn(`the notices could not be sent now: ${thrown.message}`)
  }
  if (failure !== undefined) throw failure
}
