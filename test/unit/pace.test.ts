import { describe, expect, test } from 'vitest'
import { paced } from '../../src/app/adapters/pace.ts'
import type { HttpRequest, HttpResponse } from '../../src/core/ports.ts'
import { Secret } from '../../src/core/secret.ts'
import { ManualClock, START } from '../fakes/clock.ts'

/**
 * A server that gives these answers in turn and 200 afterwards, and records when it was
 * called.
 */
function far(...answers: readonly Partial<HttpResponse>[]) {
  const clock = new ManualClock()
  const stop = new AbortController()
  const left = [...answers]
  const calls: (readonly [string, number])[] = []
  const http = paced(
    {
      send: ({ url }) => {
        calls.push([new URL(url).host, clock.now() - START])
        return Promise.resolve({ status: 200, headers: {}, body: new Secret(''), ...left.shift() })
      },
    },
    clock,
    stop.signal,
  )
  const request = (url: string): HttpRequest => ({ method: 'GET', url, effect: 'read' })
  return {
    clock,
    stop,
    calls,
    call: (host = 'one.test') => http.send(request(`https://${host}/x`)),
  }
}

const tooMany = (headers: Record<string, string> = {}): Partial<HttpResponse> => ({
  status: 429,
  headers,
})

describe('calls to one origin', () => {
  test.each([
    ['seconds', tooMany({ 'retry-after': '7' }), 7000],
    ['a date', tooMany({ 'retry-after': new Date(START + 9000).toUTCString() }), 9000],
    ['nothing', tooMany(), 1000],
    ['an hour', tooMany({ 'retry-after': '3600' }), 30_000],
    [
      'a window, by its end',
      { headers: { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': String(START / 1000 + 12) } },
      12_000,
    ],
    [
      'a window, by what is left',
      { headers: { 'ratelimit-remaining': '0', 'ratelimit-reset': '5' } },
      5000,
    ],
    [
      'a window that is not used up',
      { headers: { 'ratelimit-remaining': '1', 'ratelimit-reset': '5' } },
      0,
    ],
    [
      'a window that is over',
      { headers: { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': '12' } },
      0,
    ],
    ['a window without an end', { headers: { 'x-ratelimit-remaining': '0' } }, 0],
  ])('the next one waits when an answer asked for it: %s', async (_what, answer, wait) => {
    const { calls, call } = far(answer)
    await call()
    await call()
    expect(calls).toEqual([
      ['one.test', 0],
      ['one.test', wait],
    ])
  })

  test('another origin does not wait', async () => {
    const { calls, call } = far(tooMany({ 'retry-after': '7' }))
    await call()
    await call('two.test')
    expect(calls.at(-1)).toEqual(['two.test', 0])
  })

  test('a wait ends when the process is asked to stop, and nothing is sent', async () => {
    const { stop, calls, call } = far(tooMany({ 'retry-after': '7' }))
    await call()
    stop.abort(new Error('asked to stop'))
    await expect(call()).rejects.toThrow('asked to stop')
    expect(calls).toHaveLength(1)
  })
})
