/**
 * A web hook of the operator's own that takes the value: `POST url` with
 * `{"event":"push"|"restore","path","version","deliveryId","values":{NAME: text}}`.
 * `webhook-id` and `Idempotency-Key` are the delivery's id, the same for every
 * repetition, so the receiver can drop repeats; with `secret` the call is signed as
 * Standard Webhooks (https://www.standardwebhooks.com) say. Any 2xx means done. The value
 * can't be read back.
 *
 * Only the receiver knows what stood there before. An undo (`restore`) gives it the old
 * version. If there is none, or if it lacks a value that the target has, `version` is
 * null and `values` is empty; such a call has an id of its own each time, because an id
 * that came before would be dropped. By contract a repetition is harmless.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import type { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery } from '../core/target.ts'
import { answeredBy } from '../net/answered.ts'
import { parseObject } from '../net/json.ts'
import { retryAfterMs } from '../net/retry.ts'
import { settlesAfterField, settlesAfterOf } from '../core/settles-after.ts'
import { signature } from '../net/standard-webhooks.ts'
import { pickDefined } from '../core/defined.ts'

const Config = z.strictObject({
  url: urlField('Address that is called; https, or http to this machine'),
  secret: secretField(
    'Signs each call with Standard Webhooks headers; whsec_… or any text',
  ).optional(),
  token: secretField('Sent as Authorization: Bearer').optional(),
  settlesAfter: settlesAfterField('hook'),
})
type Options = z.output<typeof Config>

export default defineTarget({
  id: 'webhook',
  title: 'Signed web hook that takes the value',
  notes: ["It is told what to deliver and can't be asked what stands there."],
  example: { url: 'https://app.example.com/secrets', secret: { secret: 'infra/hook/SIGNING' } },
  config: Config,
  readable: false,
  told: true,
  settlesAfterMs: ({ settlesAfter }) => settlesAfterOf(settlesAfter),
  describe: ({ url }) => new URL(url).host,
  whole: ({ url }) => wholeOf(new URL(url)),
  open: (config, context) =>
    Promise.resolve({
      // Every call to the hook has an effect, so none is made; that the address is
      // allowed was checked by the schema.
      probe: () => Promise.resolve(),
      put: (delivery) => deliver(config, context, 'push', delivery.entries, delivery),
      restore: async (prior, old) => {
        const before = Object.fromEntries(
          Object.entries(prior ?? {}).flatMap(([name, value]) =>
            value === null ? [] : [[name, value] as const],
          ),
        )
        await deliver(config, context, 'restore', old?.entries ?? before, old)
      },
      close: () => Promise.resolve(),
    }),
})

/** A query may hold a token, so only its digest is kept. */
function wholeOf({ origin, pathname, search }: URL): string {
  if (search === '') return `${origin}${pathname}`
  return `${origin}${pathname}?${createHash('sha256').update(search).digest('hex').slice(0, 16)}`
}

async function deliver(
  config: Options,
  context: AdapterContext,
  event: 'push' | 'restore',
  entries: Readonly<Record<string, Secret>>,
  delivery: Delivery | undefined,
): Promise<void> {
  const values = Object.entries(entries).map(([name, value]) => {
    if (value.isText()) return [name, value.reveal()] as const
    throw new AdapterError(
      'misconfigured',
      `the value of ${name} is not UTF-8 text and can not be sent in JSON`,
    )
  })
  const id = delivery?.id ?? `restore-${Buffer.from(context.random.bytes(16)).toString('hex')}`
  const body = JSON.stringify({
    event,
    path: context.path,
    version: delivery?.version ?? null,
    deliveryId: id,
    values: Object.fromEntries(values),
  })
  const {
    status,
    headers,
    body: answer,
  } = await context.http.send({
    method: 'POST',
    url: config.url,
    headers: {
      'content-type': 'application/json',
      'idempotency-key': id,
      ...(config.token === undefined ? {} : { authorization: `Bearer ${config.token.reveal()}` }),
      ...(config.secret === undefined
        ? { 'webhook-id': id }
        : signature(config.secret, id, context.clock.now(), body)),
    },
    body,
    effect: 'idempotent',
    signal: context.signal,
  })
  if (status >= 200 && status < 300) return
  const message = `the web hook answered ${status}`
  const wait = retryAfterMs(headers['retry-after'], context.clock.now())
  if (status === 429)
    throw new AdapterError('throttled', message, {
      effect: 'unknown',
      ...pickDefined({ retryAfterMs: wait }),
    })
  if (status >= 500) {
    const own = answer.isText() && parseObject(answer.reveal()) !== undefined
    throw new AdapterError('unavailable', message, {
      effect: 'unknown',
      ...answeredBy(status, own),
    })
  }
  throw new AdapterError(status === 401 || status === 403 ? 'denied' : 'failed', message, {
    retryable: false,
  })
}
