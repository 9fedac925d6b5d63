/**
 * Spares other secrets when their provider does not answer. After three rotations that
 * failed for that reason, and none that succeeded in between, the rest of the secrets of
 * the same provider are left for the next `run-due`: none of their attempts is used up,
 * and their schedules keep their dates.
 */
import type { RotateError } from '../../core/errors.ts'
import type { ConfigValue, SecretRecord } from '../../core/model.ts'
import { Secret } from '../../core/secret.ts'
import { kindOf } from '../../engine/steps/kinds.ts'

/** After how many such failures the other secrets are left alone. */
const LIMIT = 3

const TRANSPORT: ReadonlySet<unknown> = new Set([
  'unreachable',
  'timeout',
  'unavailable',
  'throttled',
])

export class Breaker {
  readonly #inARow = new Map<string, number>()

  /** Why this secret is left alone for now; `undefined` where it is not. */
  reasonToSkip(secret: SecretRecord): string | undefined {
    const provider = secret.schedule?.provider
    if (provider === undefined || (this.#inARow.get(placeOf(secret)) ?? 0) < LIMIT) return undefined
    return `provider ${provider.id} does not answer; left for the next run-due`
  }

  /** Records how a rotation of this secret ended. */
  record(secret: SecretRecord, failure: RotateError | undefined): void {
    const place = placeOf(secret)
    const { reason, step } = failure?.details ?? {}
    // What a target or a check does says nothing about the provider.
    const asked = typeof step === 'string' && kindOf(step).asks === 'provider'
    if (TRANSPORT.has(reason) && asked) this.#inARow.set(place, (this.#inARow.get(place) ?? 0) + 1)
    else if (failure === undefined) this.#inARow.delete(place)
  }
}

/** The provider and where it is: two web hooks are two places. */
function placeOf(secret: SecretRecord): string {
  const provider = secret.schedule?.provider
  if (provider === undefined) return ''
  return [provider.id, ...originsIn(provider.config)].join(' ')
}

function originsIn(config: ConfigValue): readonly string[] {
  if (typeof config === 'string')
    return /^https?:/.test(config) && URL.canParse(config) ? [new URL(config).origin] : []
  if (config === null || typeof config !== 'object' || config instanceof Secret) return []
  return Object.values(config).flatMap((item: ConfigValue) => originsIn(item))
}
