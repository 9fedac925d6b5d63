import type { ShownPlan } from '../../app/rotation/plan.ts'
import type { Context } from '../context.ts'

/** Prints a plan for people, with numbered steps. */
export async function showPlan(ctx: Context, plan: ShownPlan): Promise<void> {
  ctx.out.line(`${plan.path}   plan ${plan.hash}`)
  await ctx.out.table(
    ['', 'STEP', 'WHAT HAPPENS'],
    plan.steps.map((step, i) => [String(i + 1), step.step, step.effect]),
  )
  for (const { target, names, what } of plan.differs)
    ctx.out.line(`target ${target}: ${names.join(', ')} ${what}`)
}
