/**
 * Which conditions each override drops, in the words that stand on the screen before and
 * after it. No override drops anything that is not in this table.
 */
import type { Context } from './context.ts'

export interface Overrides {
  readonly giveUp?: readonly string[]
  readonly skipChecks?: boolean
  readonly emergency?: boolean
  readonly revokeFirst?: boolean
  readonly leaked?: boolean
  /** Of secrets that an emergency replaces: those whose old value nobody here can end. */
  readonly livesOn?: readonly string[]
  /** None of these secrets has an old value that can be ended from here. */
  readonly nothingEnds?: boolean
  /** `--force` beside a given value. */
  readonly forceValue?: boolean
  /** `--force` of `revoke`. */
  readonly forceRevoke?: boolean
  readonly revoke?: boolean
  readonly purge?: boolean
  readonly forcePurge?: boolean
  readonly acceptRollback?: boolean
}

/** One condition that is dropped, in words. */
export type Dropped = string

/** The conditions that these overrides drop, in order. */
export function droppedBy(overrides: Overrides): readonly Dropped[] {
  const { giveUp = [] } = overrides
  return [
    ...giveUp.map((name) => `${name}, should it fail once more: ${leftOpen(name)}`),
    ...(overrides.skipChecks === true
      ? ['the checks: the version becomes current without a proof that it works']
      : []),
    ...(overrides.emergency === true || overrides.revokeFirst === true || overrides.leaked === true
      ? [
          ...(overrides.nothingEnds === true
            ? []
            : [
                'the grace: the old value ends as soon as the new one is delivered and checked',
                'the look whether the old value is still in use',
              ]),
          ...(overrides.livesOn ?? []).map(
            (path) =>
              `the grace of ${path}: its old value is out of use here at once, and nobody ` +
              'can end it from here; if it opens anything, end it there',
          ),
          'the grace of older versions that still live',
        ]
      : []),
    ...(overrides.revokeFirst === true
      ? [
          'the way back: the old value is switched off first, and consumers fail until they ' +
            'have the new one',
        ]
      : []),
    ...(overrides.forceValue === true ? ['the refusal of a value that was revoked before'] : []),
    ...(overrides.revoke === true || overrides.forceRevoke === true
      ? ['the rest of the grace and of the quarantine']
      : []),
    ...(overrides.forceRevoke === true
      ? ['the look whether the old value was used since it was replaced']
      : []),
    ...(overrides.purge === true ? ['the thirty days in which it can be restored'] : []),
    ...(overrides.forcePurge === true
      ? [
          'the refusal while its keys still live at the provider: nobody here can name them ' +
            'afterwards',
        ]
      : []),
    ...(overrides.acceptRollback === true
      ? [
          'the refusal of a vault that is older than what was seen here: what was rotated ' +
            'since is not in it',
        ]
      : []),
  ]
}

function leftOpen(name: string): string {
  return name.startsWith('target:')
    ? 'it stays as it is, and may hold a value that has ended'
    : 'that the value works is then not shown by it'
}

/** Says, after a decision was carried out, what of it really had to be given up. */
export function tellGivenUp(ctx: Context, names: readonly string[]): void {
  for (const name of names)
    ctx.out.note(`given up: ${name} was tried again and failed; ${leftOpen(name)}`)
}

/** Says what is dropped, on stderr, before it is done and after. */
export function tellDropped(
  ctx: Context,
  dropped: readonly Dropped[],
  when: 'before' | 'after',
): void {
  for (const condition of dropped)
    ctx.out.note(`${when === 'before' ? 'not asked for' : 'was not asked for'}: ${condition}`)
}
