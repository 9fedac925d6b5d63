/**
 * Notices to Microsoft Teams, through the address of a workflow
 * (https://learn.microsoft.com/connectors/teams/#microsoft-teams-webhook); the older
 * connectors were retired in 2026. The signature in the address is the credential, so the
 * whole address is a secret. A workflow answers 202 before it has posted anything, so
 * this program can't notice a broken one. The runs of text in a card do not interpret
 * Markdown, so nothing in a path or an error becomes a link.
 */
import { z } from 'zod'
import { defineNotifier, type Notice } from '../core/notifier.ts'
import { secretField } from '../core/schema.ts'
import { retryAfterMs } from '../net/retry.ts'
import { addressFault, cut, postJson } from './_post.ts'
import { mustBeDelivered } from './_status.ts'

/**
 * Teams accepts about 28 KB in one message. A notice is much shorter, unless an error
 * text is long.
 */
const LINE_CHARACTERS = 1000
const LINES = 20

const Config = z
  .strictObject({
    url: secretField(
      'Address of a workflow "Post to a channel when a webhook request is received"',
    ),
  })
  .superRefine(({ url }, context) => {
    const fault = addressFault(url)
    if (fault !== undefined) context.addIssue({ code: 'custom', path: ['url'], message: fault })
  })

export default defineNotifier({
  id: 'teams',
  title: 'Microsoft Teams',
  config: Config,
  describe: () => 'workflow',
  send: async ({ url }, notice, context) => {
    const { status, headers } = await postJson(url.reveal(), messageOf(notice), context)
    mustBeDelivered('Teams', status, retryAfterMs(headers['retry-after'], context.clock.now()))
  },
})

function messageOf(notice: Notice): unknown {
  const run = (text: string, more: object = {}): object => ({
    type: 'TextRun',
    text: cut(text, LINE_CHARACTERS),
    ...more,
  })
  const line = (...inlines: readonly object[]): object => ({ type: 'RichTextBlock', inlines })
  const facts = notice.facts
    .slice(0, LINES)
    .map(({ label, value }) => line(run(`${label}: `, { weight: 'Bolder' }), run(value)))
  const body = [
    line(
      run(notice.title, {
        weight: 'Bolder',
        size: 'Medium',
        color: notice.urgent ? 'Attention' : 'Default',
      }),
    ),
    ...facts,
    ...(notice.next === null ? [] : [line(run('Next: ', { weight: 'Bolder' }), run(notice.next))]),
    ...(notice.command === null ? [] : [line(run(notice.command, { fontType: 'Monospace' }))]),
    // The id lets receivers drop repetitions, and lets people find the event.
    line(run(notice.id, { isSubtle: true, size: 'Small' })),
  ]
  const content = {
    $schema: 'http://adaptivecards.io/schemas/adaptive-card.json',
    type: 'AdaptiveCard',
    version: '1.4',
    body,
  }
  return {
    type: 'message',
    attachments: [
      { contentType: 'application/vnd.microsoft.card.adaptive', contentUrl: null, content },
    ],
  }
}
