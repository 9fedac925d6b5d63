/**
 * Secrets of Cloudflare Workers
 * (https://developers.cloudflare.com/api/resources/workers/subresources/scripts/subresources/secrets).
 *
 * A value can never be read back. Only names are listed, without a date or a digest, so
 * that nothing shows whether a secret is still what was written last. Writing a secret
 * deploys a new version of the script at once, so there is nothing else to deploy.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import type { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import { CLOUDFLARE, ID, resultIn, VENDOR } from '../net/cloudflare.ts'
import { type Api, api, listIn, plainText, textIn } from '../net/json-api.ts'
import { backsOf, awaitDeleted, missingIn, type Slot, standingOf } from './_places.ts'

/** https://developers.cloudflare.com/workers/platform/limits/#environment-variables */
const MAX_BYTES = 5 * 1024

const Config = z.strictObject({
  accountId: z
    .string()
    .regex(ID, 'is not the id of an account (32 hexadecimal digits)')
    .meta({ description: 'Account that owns the scripts' }),
  scripts: z
    .array(z.string().regex(/^[a-z0-9_][a-z0-9_-]{0,62}$/i, 'is not the name of a script'))
    .min(1)
    .meta({ description: 'Names of the Workers' }),
  token: secretField('API token with "Workers Scripts: Edit" for this account'),
  create: z
    .boolean()
    .default(false)
    .meta({ description: 'Also write where the secret does not exist yet' }),
  baseUrl: urlField('Of the API').default(CLOUDFLARE),
})
type Options = z.output<typeof Config>

export default defineTarget({
  id: 'cloudflare-workers',
  title: 'Secrets of Cloudflare Workers',
  example: {
    accountId: '0123456789abcdef0123456789abcdef',
    scripts: ['shop'],
    token: { secret: 'infra/cloudflare/WORKERS' },
  },
  config: Config,
  readable: false,
  slots: ({ accountId, scripts }, name) =>
    scripts.map((script) => `${accountId}/${script} ${name}`),
  describe: ({ scripts }) => `Cloudflare Workers ${scripts.join(', ')}`,
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const cloudflare = api(VENDOR, config.baseUrl, config.token, context)
  return {
    probe: async () =>
      void (await Promise.all(config.scripts.map((script) => namesOf(cloudflare, config, script)))),
    put: (delivery) => put(cloudflare, config, delivery, context),
    standing: async (names) => {
      const slots: Slot[] = []
      for (const script of config.scripts) {
        const held = await namesOf(cloudflare, config, script)
        for (const name of names) {
          if (held.has(name)) slots.push({ path: script, name, kept: { sign: null } })
          else if (config.create) slots.push({ path: script, name, kept: null })
        }
      }
      const missing = config.create ? undefined : missingIn(slots, names)
      if (missing !== undefined) throw nowhere(missing)
      return standingOf(slots, names)
    },
    restore: (prior, old, rest) => restore(cloudflare, config, { prior, old, rest }, context),
    close: () => Promise.resolve(),
  }
}

const secretsOf = ({ accountId }: Options, script: string): string =>
  `/accounts/${accountId}/workers/scripts/${encodeURIComponent(script)}/secrets`

async function namesOf(
  cloudflare: Api,
  config: Options,
  script: string,
): Promise<ReadonlySet<string>> {
  const rows = listIn(
    resultIn(await cloudflare.call('GET', secretsOf(config, script)), 'none'),
    VENDOR,
  )
  return new Set(rows.map((row) => textIn(row, 'name', VENDOR)))
}

function nowhere(name: string): AdapterError {
  return new AdapterError('misconfigured', `no chosen Worker on ${VENDOR} has the secret ${name}`, {
    hints: ['set it there once, or "create": true'],
  })
}

async function put(
  cloudflare: Api,
  config: Options,
  delivery: Delivery,
  context: AdapterContext,
): Promise<void> {
  const entries = Object.entries(delivery.entries).map(
    ([name, value]) => [name, plainText(value)] as const,
  )
  for (const [name, value] of entries)
    if (Buffer.byteLength(value) > MAX_BYTES)
      throw new AdapterError(
        'misconfigured',
        `the value of ${name} is longer than the ${MAX_BYTES / 1024} KB that ${VENDOR} takes`,
      )
  const held = await Promise.all(
    config.scripts.map((script) => namesOf(cloudflare, config, script)),
  )
  for (const [name, value] of entries) {
    const at = config.scripts.filter((_script, i) => config.create || held[i]?.has(name) === true)
    if (at.length === 0) throw nowhere(name)
    for (const [i, script] of at.entries()) {
      await write(cloudflare, config, script, name, value)
      context.note(`${VENDOR}: ${name} in ${script} (${i + 1}/${at.length})`)
    }
  }
}

async function write(
  cloudflare: Api,
  config: Options,
  script: string,
  name: string,
  text: string,
): Promise<void> {
  const answer = await cloudflare.call('PUT', secretsOf(config, script), {
    name,
    text,
    type: 'secret_text',
  })
  const result = resultIn(answer, 'unknown')
  const written =
    typeof result === 'object' && result !== null && 'name' in result ? result.name : undefined
  if (written !== name)
    throw new AdapterError('bad-answer', `${VENDOR} does not say that it wrote ${name}`, {
      effect: 'unknown',
    })
}

interface Known {
  readonly prior: Prior | undefined
  readonly old: Delivery | undefined
  readonly rest: Secret | undefined
}

/** Writes what stood there before where it is known, and removes what was made. */
async function restore(
  cloudflare: Api,
  config: Options,
  { prior, old, rest }: Known,
  context: AdapterContext,
): Promise<void> {
  const backs = backsOf(config.scripts, prior, old, rest)
  if (rest === undefined && backs.length === 0)
    return context.note(
      `${VENDOR}: what was written stays, because nothing was noted of what stood there`,
    )
  for (const script of new Set(backs.map(({ path }) => path))) {
    const held = await namesOf(cloudflare, config, script)
    for (const { name, value, stood } of backs.filter(({ path }) => path === script)) {
      if (value === undefined)
        context.note(
          `${VENDOR}: what ${name} in ${script} held can not be read, so what was written to ` +
            'it stays',
        )
      else if (value !== null) {
        if (stood || held.has(name)) await write(cloudflare, config, script, name, plainText(value))
      } else if (held.has(name)) {
        // https://developers.cloudflare.com/api/resources/workers/subresources/scripts/subresources/secrets/methods/delete
        await awaitDeleted(
          cloudflare.call(
            'DELETE',
            `${secretsOf(config, script)}/${encodeURIComponent(name)}?url_encoded=true`,
          ),
        )
      }
    }
  }
}
