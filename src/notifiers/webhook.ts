/**
 * Notices to a web hook of the operator's own, signed in the form of Standard Webhooks.
 * `webhook-id` is the id of the notice, which is the same for every repetition.
 */
import { z } from 'zod'
import { defineNotifier, type Notice } from '../core/notifier.ts'
import { secretField, urlField } from '../core/schema.ts'
import { signature } from '../net/standard-webhooks.ts'
import { mustBeDelivered, PATIENCE_MS } from './_status.ts'

const Config = z.strictObject({
  url: urlField('Address that is called; https, or http to this machine'),
  secret: secretField(
    'Signs each call with Standard Webhooks headers; whsec_… or any text',
  ).optional(),
})

export default defineNotifier({
  id: 'webhook',
  title: 'Signed web hook',
  config: Config,
  describe: (config) => new URL(config.url).host,
  send: async (config, notice, context) => {
    const body = bodyOf(notice)
    const signed =
      config.secret === undefined
        ? { 'webhook-id': notice.id }
        : signature(config.secret, notice.id, context.clock.now(), body)
    const { status } = await context.http.send({
      method: 'POST',
      url: config.url,
      headers: { 'content-type': 'application/json', ...signed },
      body,
      effect: 'idempotent',
      attempts: 1,
      timeoutMs: PATIENCE_MS,
      signal: context.signal,
    })
    mustBeDelivered('the web hook', status)
  },
})

function bodyOf({ type, at, facts, ...rest }: Notice): string {
  const data = {
    ...rest,
    facts: Object.fromEntries(facts.map(({ label, value }) => [label, value])),
  }
  return JSON.stringify({ type: `rotation.${type}`, timestamp: new Date(at).toISOString(), data })
}
