/**
 * Records every credential that the suite has made at the far side, so that none is
 * forgotten: at the end each is ended, or named together with the reason why it could not
 * be.
 */
import { AdapterError } from '../../../core/errors.ts'
import type { Intent } from '../../../core/model.ts'
import type { Clock } from '../../../core/ports.ts'
import type { Credential, Issued, ProviderSession, Traits } from '../../../core/provider.ts'
import { sameFields, type Secret } from '../../../core/secret.ts'
import { pickDefined } from '../../../core/defined.ts'

export interface Made {
  readonly intent: Intent
  readonly credential: Credential
  ended: boolean
}

/** Something that lives, or may live, at the far side when the suite is over. */
export interface Left {
  /** The mark under which it was made (`ROTATE_INTENT`). */
  readonly intent: string
  readonly keyId: string | null
  readonly why: string
}

interface Proof {
  readonly proves: boolean
  readonly patient: boolean
}

/** Fields whose name says that they are not secret: they may stand in a log. */
const PUBLIC = /id$|^(user|username|host|port|database|name|email|region)$/i
/** Shorter values occur in ordinary text by chance. */
const SHORTEST = 4
const SPREAD_MS = [1000, 2000, 4000]

export class Ledger {
  readonly made: Made[] = []
  /** Creates of which nobody knows what they did. */
  readonly lost: Intent[] = []
  /** Values that must not appear in any output. */
  readonly secrets: Secret[] = []

  /** Puts an issued credential on record; one that is there already is given back. */
  keep(intent: Intent, issued: Issued): Made {
    const known = this.made.find(({ credential }) => sameFields(credential.fields, issued.fields))
    if (known !== undefined) return known
    const credential: Credential = {
      fields: issued.fields,
      ...pickDefined({ handle: issued.handle }),
    }
    const made = { intent, credential, ended: false }
    this.made.push(made)
    this.guard(credential)
    return made
  }

  /** Takes a create off the list of the lost ones: what it did is known now. */
  markSettled(intent: Intent): void {
    const at = this.lost.indexOf(intent)
    if (at >= 0) this.lost.splice(at, 1)
  }

  /**
   * Adds the secret values of a credential to those that must not appear in any output.
   */
  guard({ fields }: Credential): void {
    this.secrets.push(...secretFields(fields).flatMap((name) => fields[name] ?? []))
  }

  /**
   * The values that stand in this text, in one of the spellings in which values come
   * back.
   */
  valuesIn(text: string): readonly Secret[] {
    return this.secrets.filter(
      (secret) =>
        secret.size >= SHORTEST && spellings(secret).some((spelling) => text.includes(spelling)),
    )
  }

  /** Text without any of the values. */
  clean(text: string): string {
    return this.valuesIn(text)
      .flatMap(spellings)
      .reduce((clean, spelling) => clean.replaceAll(spelling, '[secret]'), text)
  }

  /**
   * Finds out what the lost creates made, ends everything that is not ended, and returns
   * what is left. `proves`: the word of verify can be believed, so a value only counts as
   * ended once verify refuses it; `patient`: verify is asked for some seconds, because an
   * end takes its time to spread.
   */
  async settleAccounts(
    session: ProviderSession,
    traits: Traits,
    clock: Clock,
    proof: Proof,
  ): Promise<readonly Left[]> {
    const left: Left[] = []
    for (const intent of this.lost) {
      const why = await this.#recover(session, intent)
      if (why !== undefined) left.push({ intent: intent.tag, keyId: null, why })
    }
    if (traits.overlap === 'in-place') return left
    for (const made of this.made.filter(({ ended }) => !ended)) {
      const why = await end(session, made, clock, proof)
      if (why !== undefined)
        left.push({
          intent: made.intent.tag,
          keyId: made.credential.handle?.id ?? null,
          why: this.clean(why),
        })
    }
    return left
  }

  async #recover(session: ProviderSession, intent: Intent): Promise<string | undefined> {
    try {
      const settlement = await session.settle(intent, undefined)
      switch (settlement.outcome) {
        case 'none':
          return undefined
        case 'applied':
          this.keep(intent, settlement.issued)
          return undefined
        case 'stray':
          for (const handle of settlement.handles)
            this.made.push({ intent, credential: { fields: {}, handle }, ended: false })
          return undefined
        case 'ambiguous':
          return `create may have made something: ${this.clean(settlement.detail)}`
        default:
          settlement satisfies never
          return undefined
      }
    } catch (thrown) {
      if (!(thrown instanceof AdapterError)) throw thrown
      return (
        'create may have made something, and settle can not be asked: ' +
        `${this.clean(thrown.message)}`
      )
    }
  }
}

/** Ends one credential. Returns why that could not be done or proven, if so. */
async function end(
  session: ProviderSession,
  made: Made,
  clock: Clock,
  { proves, patient }: Proof,
): Promise<string | undefined> {
  if (session.revoke === undefined) return 'the program has no revoke'
  try {
    await session.revoke(made.credential)
    if (proves && !(await isDead(session, made.credential, clock, patient)))
      return 'revoke says that it is ended, but verify still accepts it'
    made.ended = true
    return undefined
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    return thrown.message
  }
}

/**
 * Does the far side refuse it? Waits a little, because an end takes its time to spread.
 * Throws `AdapterError` when that can't be told.
 */
export async function isDead(
  session: ProviderSession,
  credential: Credential,
  clock: Clock,
  patient = true,
): Promise<boolean> {
  for (let attempt = 0; ; attempt++) {
    try {
      await session.verify?.(credential, 'dead')
    } catch (thrown) {
      if (thrown instanceof AdapterError && thrown.code === 'refused') return true
      throw thrown
    }
    const pause = SPREAD_MS[attempt]
    if (pause === undefined || !patient) return false
    await clock.sleep(pause)
  }
}

/** Names of the fields that are secret; all of them where no name says so. */
export function secretFields(fields: Credential['fields']): readonly string[] {
  const names = Object.keys(fields)
  const secret = names.filter((name) => !PUBLIC.test(name))
  return secret.length === 0 ? names : secret
}

function spellings(secret: Secret): readonly string[] {
  const plain = secret.reveal()
  const bytes = Buffer.from(secret.bytes())
  const all = [
    plain,
    bytes.toString('base64').replace(/=+$/, ''),
    bytes.toString('base64url'),
    bytes.toString('hex'),
    JSON.stringify(plain).slice(1, -1),
    encodeURIComponent(plain.toWellFormed()),
  ]
  return [...new Set(all)]
}
