/**
 * Secrets of Cloudflare Workers (reference/providers.md 18; https://developers.cloudflare.com/api/resources/workers/subresources/scripts/subresources/secrets). A value can
 * never be read back: write-only; only names are listed. A written secret becomes a new version of the script that is deployed at once (unverified), so there is
 * nothing to deploy. Nothing says who made a secret, so none is ever deleted: an undo writes the older value.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import { CLOUDFLARE, ID, resultIn, VENDOR } from '../net/cloudflare.ts'
import { type Api, api, listIn, objectIn, plainText, textIn } from '../net/json-api.ts'

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
  create: z.boolean().default(false).meta({ description: 'Also write where the secret does not exist yet' }),
  baseUrl: urlField('Of the API').default(CLOUDFLARE),
})
type Options = z.output<typeof Config>

export default defineTarget({
  id: 'cloudflare-workers',
  title: 'Secrets of Cloudflare Workers',
  config: Config,
  readable: false,
  describe: ({ scripts }) => `Cloudflare Workers ${scripts.join(', ')}`,
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const cloudflare = api(VENDOR, config.baseUrl, config.token, context)
  return {
    probe: async () => void (await Promise.all(config.scripts.map((script) => namesOf(cloudflare, config, script)))),
    put: (delivery) => put(cloudflare, config, delivery, context),
    restore: (_prior, old) => restore(cloudflare, config, old, context),
    close: () => Promise.resolve(),
  }
}

const secretsOf = ({ accountId }: Options, script: string): string =>
  `/accounts/${accountId}/workers/scripts/${encodeURIComponent(script)}/secrets`

async function namesOf(cloudflare: Api, config: Options, script: string): Promise<ReadonlySet<string>> {
  const rows = listIn(resultIn(await cloudflare.call('GET', secretsOf(config, script)), 'none'), VENDOR)
  return new Set(rows.map((row) => textIn(row, 'name', VENDOR)))
}

async function put(cloudflare: Api, config: Options, delivery: Delivery, context: AdapterContext): Promise<void> {
  const entries = Object.entries(delivery.entries).map(([name, value]) => [name, plainText(value)] as const)
  for (const [name, value] of entries)
    if (Buffer.byteLength(value) > MAX_BYTES)
      throw new AdapterError('misconfigured', `the value of ${name} is longer than the ${MAX_BYTES / 1024} KB that ${VENDOR} takes`)
  const held = await Promise.all(config.scripts.map((script) => namesOf(cloudflare, config, script)))
  for (const [name, value] of entries) {
    const at = config.scripts.filter((_script, i) => config.create || held[i]?.has(name) === true)
    if (at.length === 0)
      throw new AdapterError('misconfigured', `no chosen Worker on ${VENDOR} has the secret ${name}`, {
        hints: ['set it there once, or "create": true'],
      })
    for (const [i, script] of at.entries()) {
      await write(cloudflare, config, script, name, value)
      context.note(`${VENDOR}: ${name} in ${script} (${i + 1}/${at.length})`)
    }
  }
}

async function write(cloudflare: Api, config: Options, script: string, name: string, text: string): Promise<void> {
  const result = objectIn(
    resultIn(await cloudflare.call('PUT', secretsOf(config, script), { name, text, type: 'secret_text' }), 'unknown'),
    VENDOR,
  )
  if (textIn(result, 'name', VENDOR) !== name)
    throw new AdapterError('bad-answer', `${VENDOR} wrote another secret than ${name}`, { effect: 'unknown' })
}

async function restore(cloudflare: Api, config: Options, old: Delivery | undefined, context: AdapterContext): Promise<void> {
  if (old === undefined)
    return context.note(`${VENDOR}: secrets can not be read, so what was written to them stays until the next delivery`)
  for (const script of config.scripts) {
    const names = await namesOf(cloudflare, config, script)
    for (const [name, value] of Object.entries(old.entries))
      if (names.has(name)) await write(cloudflare, config, script, name, plainText(value))
  }
}
