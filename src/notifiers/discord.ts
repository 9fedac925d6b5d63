/**
 * Notices to a channel of Discord, through its web hook
 * (https://docs.discord.com/developers/resources/webhook#execute-webhook). The token is
 * part of the address, so the whole address is a secret. Only the configured word
 * mentions people, and only in urgent notices; nothing else that looks like a mention is
 * parsed. Markdown in the texts is escaped.
 */
import { z } from 'zod'
import { defineNotifier, type Notice } from '../core/notifier.ts'
import type { HttpResponse } from '../core/ports.ts'
import { secretField } from '../core/schema.ts'
import { parseObject } from '../net/json.ts'
import { retryAfterMs } from '../net/retry.ts'
import { addressFault, cut, postJson } from './_post.ts'
import { mustBeDelivered } from './_status.ts'

/** Discord refuses a longer message. */
const CHARACTERS = 2000

const Config = z
  .strictObject({
    url: secretField('Address of a web hook of the channel, https://discord.com/api/webhooks/…'),
    mention: z
      .enum(['everyone', 'here', 'none'])
      .default('here')
      .meta({ description: 'Who is called for a failure' }),
  })
  .superRefine(({ url }, context) => {
    const fault = addressFault(url)
    if (fault !== undefined) context.addIssue({ code: 'custom', path: ['url'], message: fault })
  })

export default defineNotifier({
  id: 'discord',
  title: 'Discord',
  config: Config,
  describe: () => 'web hook',
  send: async (config, notice, context) => {
    const url = new URL(config.url.reveal())
    // With `wait` Discord answers only after it has posted the message, so that a failure
    // is seen.
    url.searchParams.set('wait', 'true')
    const calls = notice.urgent && config.mention !== 'none'
    const content = cut(`${calls ? `@${config.mention} ` : ''}${textOf(notice)}`, CHARACTERS)
    const answer = await postJson(
      url.href,
      { content, allowed_mentions: { parse: calls ? ['everyone'] : [] } },
      context,
    )
    mustBeDelivered('Discord', answer.status, pauseOf(answer, context.clock.now()))
  },
})

/**
 * How long to wait, from the header, or from the body, which has a fraction of seconds.
 */
function pauseOf({ headers, body }: HttpResponse, now: number): number | undefined {
  const seconds = parseObject(body.isText() ? body.reveal() : '')?.['retry_after']
  return (
    retryAfterMs(headers['retry-after'], now) ??
    (typeof seconds === 'number' && seconds >= 0 && seconds < 86_400
      ? Math.ceil(seconds * 1000)
      : undefined)
  )
}

function textOf(notice: Notice): string {
  return [
    `**${escaped(notice.title)}**`,
    ...notice.facts.map(({ label, value }) => `${escaped(label)}: ${escaped(value)}`),
    ...(notice.next === null ? [] : [`Next: ${escaped(notice.next)}`]),
    ...(notice.command === null ? [] : [escaped(notice.command)]),
    `-# ${escaped(notice.id)}`,
  ].join('\n')
}

/**
 * Escapes Markdown. A zero-width space breaks every word that would mention somebody,
 * because mentions are parsed in urgent notices.
 */
function escaped(text: string): string {
  return text
    .replaceAll(/\s*[\r\n\u2028\u2029]+\s*/g, ' ')
    .replaceAll(/[\\*_~`|<>[\]()#-]/g, String.raw`\$&`)
    .replaceAll('@', '@\u200B')
}
