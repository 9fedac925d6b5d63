/** Recognises the crashes that tests inject. */

/**
 * Is this the death of a process that a test simulates? The engine must pass it on and
 * never take it for an answer.
 */
export function isCrash(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.name === 'InjectedCrash'
}
