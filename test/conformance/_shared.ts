/** Helpers that all conformance suites use. */
import { inspect } from 'node:util'
import { expect } from 'vitest'

/**
 * None of the secrets appears, plain or encoded, in anything that a person, a log or JSON
 * would show.
 */
export function expectNoLeak(shown: unknown, secrets: readonly string[]): void {
  const text = `${inspect(shown, { depth: 12, maxStringLength: Number.POSITIVE_INFINITY, showHidden: false })}\n${JSON.stringify(shown)}\n${
    shown instanceof Error ? `${shown.message}\n${shown.stack}` : ''
  }`
  for (const secret of secrets.filter((item) => item.length >= 6)) {
    const bytes = Buffer.from(secret)
    for (const spelling of [
      secret,
      bytes.toString('base64').replace(/=+$/, ''),
      bytes.toString('hex'),
      encodeURIComponent(secret),
    ])
      expect(text.includes(spelling), `a secret shows in ${text.slice(0, 400)}`).toBe(false)
  }
}

/**
 * Every property of a JSON Schema has a description, including those of nested objects
 * and of each variant.
 */
export function expectDescribed(schema: unknown, where = 'config'): void {
  if (schema === null || typeof schema !== 'object') return
  const { properties, oneOf = [] } = schema as {
    properties?: Record<string, { description?: string; properties?: unknown }>
    oneOf?: unknown[]
  }
  for (const form of oneOf) expectDescribed(form, where)
  for (const [name, property] of Object.entries(properties ?? {})) {
    expect(property.description, `${where}.${name} has no description`).toBeTruthy()
    expectDescribed(property, `${where}.${name}`)
  }
}
