/** Crashes that tests inject. */

/**
 * Is this the death of a process that a test plays? It must never be taken for an answer.
 */
export function isCrash(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.name === 'InjectedCrash'
}
