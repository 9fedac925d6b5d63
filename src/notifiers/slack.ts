/**
 * Notices to Slack, through an incoming webhook
 * (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks) or through
 * `chat.postMessage` (https://docs.slack.dev/reference/methods/chat.postMessage), which
 * answers 200 with `"ok": false` when it failed. The address of an incoming webhook is a
 * secret itself. `&`, `<` and `>` are escaped in texts, so that nothing in a path or an
 * error can mention people. Only urgent notices contain `<!channel>`.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import { defineNotifier, type Notice, type NoticeType } from '../core/notifier.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlFault, urlField } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { parseObject } from '../net/json.ts'
import { retryAfterMs } from '../net/retry.ts'
import { mustBeDelivered, PATIENCE_MS } from './_status.ts'

const Config = z
  .strictObject({
    url: secretField(
      'Address of an incoming webhook, https://hooks.slack.com/services/…',
    ).optional(),
    token: secretField('Bot token (xoxb-…) with the scope chat:write, instead of "url"').optional(),
    channel: z
      .string()
      .min(1)
      .max(80)
      .optional()
      .meta({ description: 'Channel id or name, with "token"' }),
    baseUrl: urlField('Of the API, with "token"; default https://slack.com/api').optional(),
  })
  .superRefine((config, context) => {
    const fail = (field: string, message: string): void =>
      context.addIssue({ code: 'custom', path: [field], message })
    if ((config.url === undefined) === (config.token === undefined))
      fail('url', 'is needed, or "token" with "channel"; not both')
    if (config.token !== undefined && config.channel === undefined) fail('channel', 'is missing')
    if (config.url !== undefined && (config.channel !== undefined || config.baseUrl !== undefined))
      fail('url', 'names the channel itself; "channel" and "baseUrl" go with "token"')
    // A reference to another secret is resolved later, and then the HTTP client applies
    // the same rule.
    const fault = config.url instanceof Secret ? urlFault(config.url.reveal()) : undefined
    if (fault !== undefined) fail('url', fault)
  })
type Options = z.output<typeof Config>

export default defineNotifier({
  id: 'slack',
  title: 'Slack',
  config: Config,
  describe: (config) =>
    config.channel === undefined ? 'incoming webhook' : `channel ${config.channel}`,
  send: (config, notice, context) =>
    config.url === undefined
      ? postMessage(config, notice, context)
      : postIncoming(config.url, notice, context),
})

async function postIncoming(url: Secret, notice: Notice, context: AdapterContext): Promise<void> {
  const { status, headers } = await call(url.reveal(), { text: textOf(notice) }, {}, context)
  mustBeDelivered('Slack', status, retryAfterMs(headers['retry-after'], context.clock.now()))
}

async function postMessage(
  config: Options,
  notice: Notice,
  context: AdapterContext,
): Promise<void> {
  const url = `${(config.baseUrl ?? 'https://slack.com/api').replace(/\/$/, '')}/chat.postMessage`
  const body = { channel: config.channel, text: textOf(notice), unfurl_links: false }
  const {
    status,
    headers,
    body: answer,
  } = await call(url, body, { authorization: `Bearer ${config.token?.reveal() ?? ''}` }, context)
  mustBeDelivered('Slack', status, retryAfterMs(headers['retry-after'], context.clock.now()))
  const { ok, error } = parseObject(answer.isText() ? answer.reveal() : '') ?? {}
  if (ok === true) return
  const why =
    typeof error === 'string' && /^[a-z_]{1,60}$/.test(error)
      ? error
      : 'an answer that is not understood'
  const passing = [
    'ratelimited',
    'internal_error',
    'fatal_error',
    'service_unavailable',
    'request_timeout',
  ].includes(why)
  throw new AdapterError(
    passing ? 'unavailable' : 'denied',
    `Slack did not take the message: ${why}`,
    { retryable: passing },
  )
}

function call(
  url: string,
  body: unknown,
  headers: Readonly<Record<string, string>>,
  context: AdapterContext,
) {
  return context.http.send({
    method: 'POST',
    url,
    headers: { 'content-type': 'application/json; charset=utf-8', ...headers },
    body: JSON.stringify(body),
    effect: 'idempotent',
    attempts: 1,
    timeoutMs: PATIENCE_MS,
    signal: context.signal,
  })
}

const SIGNS: Readonly<Record<NoticeType, string>> = {
  upcoming: '⚠️',
  started: '🔄',
  succeeded: '✅',
  failed: '❌',
  rolled_back: '↩️',
  revoked: '🗑️',
  held: '⏳',
  needs_operator: '🚨',
  test: '🔔',
}

function textOf(notice: Notice): string {
  const lines = [
    `${SIGNS[notice.type]} *${escaped(notice.title)}*`,
    ...notice.facts.map(({ label, value }) => `${escaped(label)}: ${escaped(value)}`),
  ]
  if (notice.next !== null) lines.push(`Next: ${escaped(notice.next)}`)
  if (notice.command !== null) lines.push(`\`${escaped(notice.command).replaceAll('`', "'")}\``)
  return `${notice.urgent ? '<!channel> ' : ''}${lines.join('\n')}`
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
