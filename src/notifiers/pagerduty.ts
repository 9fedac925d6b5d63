/**
 * Alerts through the Events API v2 of PagerDuty
 * (https://developer.pagerduty.com/docs/send-alert-event). A failed rotation, one that
 * was rolled back and one that waits for a person trigger an alert. All alerts of one
 * secret have the same key, so a repetition makes no second alert, and the next
 * successful rotation resolves it. Other notices are not sent, because nobody should be
 * woken for them.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { iso } from '../core/duration.ts'
import { defineNotifier, type Notice, type NoticeType } from '../core/notifier.ts'
import { secretField, urlField } from '../core/schema.ts'
import type { Secret } from '../core/secret.ts'
import { retryAfterMs } from '../net/retry.ts'
import { cut, postJson } from './_post.ts'
import { mustBeDelivered } from './_status.ts'

const SUMMARY_CHARACTERS = 1024
const KEY_CHARACTERS = 255

const Config = z.strictObject({
  routingKey: secretField('Integration key of a service, type Events API v2 (32 characters)'),
  baseUrl: urlField('Of the Events API').default('https://events.pagerduty.com'),
})

const SEVERITY: Readonly<Partial<Record<NoticeType, 'critical' | 'error' | 'warning' | 'info'>>> = {
  needs_operator: 'critical',
  failed: 'error',
  rolled_back: 'warning',
  test: 'info',
}

export default defineNotifier({
  id: 'pagerduty',
  title: 'PagerDuty alerts',
  config: Config,
  describe: () => 'Events API v2',
  send: async ({ routingKey, baseUrl }, notice, context) => {
    for (const event of eventsOf(notice, routingKey)) {
      const { status, headers } = await postJson(
        `${baseUrl.replace(/\/$/, '')}/v2/enqueue`,
        event,
        context,
      )
      mustBeDelivered(
        'PagerDuty',
        status,
        retryAfterMs(headers['retry-after'], context.clock.now()),
      )
    }
  },
})

function eventsOf(notice: Notice, routingKey: Secret): readonly object[] {
  const key = { routing_key: routingKey.reveal(), dedup_key: keyOf(notice) }
  const resolve = { ...key, event_action: 'resolve' }
  const severity = SEVERITY[notice.type]
  if (severity === undefined) return notice.type === 'succeeded' ? [resolve] : []
  const details = Object.fromEntries([
    ...notice.facts.map(({ label, value }) => [label, value] as const),
    ...(notice.next === null ? [] : [['Next', notice.next] as const]),
    ...(notice.command === null ? [] : [['Command', notice.command] as const]),
    ['Notice', notice.id] as const,
  ])
  const trigger = {
    ...key,
    event_action: 'trigger',
    client: 'rotate',
    payload: {
      summary: cut(notice.title, SUMMARY_CHARACTERS),
      source: 'rotate',
      component: notice.path,
      severity,
      timestamp: iso(notice.at),
      custom_details: details,
    },
  }
  // A test shows that an alert arrives, and leaves none behind.
  return notice.type === 'test' ? [trigger, resolve] : [trigger]
}

function keyOf({ path, type }: Notice): string {
  const key = `rotate/${type === 'test' ? 'test' : path}`
  return key.length <= KEY_CHARACTERS
    ? key
    : `rotate/${createHash('sha256').update(path).digest('hex')}`
}
