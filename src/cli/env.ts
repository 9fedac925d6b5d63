/**
 * Reads variables of the environment. This is a file of its own, because the short way of
 * `get` needs nothing else of the options.
 */

/** A variable's value; empty counts as unset. */
export function fromEnv(
  env: Readonly<Record<string, string | undefined>>,
  name: string,
): string | undefined {
  const value = env[name]
  return value === undefined || value === '' ? undefined : value
}
