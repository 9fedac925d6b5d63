/**
 * The end of a command that changed something: tells whom it may concern. The result is
 * on the screen by then, and stays what it is.
 */
import { RotateError } from '../core/errors.ts'
import type { Context } from './context.ts'

/**
 * Does nothing, and reads one document, where there is no notifier. A notifier that is
 * down is a warning; only a vault that fails is an error.
 */
export async function tell(ctx: Context): Promise<void> {
  const { flush } = await import('../app/notices/notices.ts')
  try {
    await flush(await ctx.deps(), true)
  } catch (thrown) {
    if (!(thrown instanceof RotateError) || ['tampered', 'interrupted'].includes(thrown.code))
      throw thrown
    ctx.out.warn(`the notices could not be sent now: ${thrown.message}`)
  }
}
