/**
 * Secrets of Workers on loopback, after
 * https://developers.cloudflare.com/api/resources/workers/subresources/scripts/: names
 * are listed, values are not; every answer stands in Cloudflare's envelope.
 */
import { type Answer, type Asked, FakeHost } from './hosting.ts'

export class FakeCloudflare extends FakeHost {
  readonly accountId = '0123456789abcdef0123456789abcdef'
  readonly scripts = new Map<string, Map<string, string>>()
  /** Answers 200 and says in its envelope that it failed. */
  hollow = false

  script(name: string, secrets: Readonly<Record<string, string>> = {}): Map<string, string> {
    const held = new Map(Object.entries(secrets))
    this.scripts.set(name, held)
    return held
  }

  protected answer({ method, url, body }: Asked): Answer {
    const found = new RegExp(
      `^/accounts/${this.accountId}/workers/scripts/([^/]+)/secrets(?:/([^/]+))?$`,
    ).exec(url.pathname)
    const held = this.scripts.get(decodeURIComponent(found?.[1] ?? ''))
    const failed = (code: number): object => ({
      success: false,
      errors: [{ code, message: 'no' }],
      messages: [],
      result: null,
    })
    if (held === undefined) return { status: 404, body: failed(10_007) }
    const done = (result: unknown): Answer => ({
      status: 200,
      body: { success: true, errors: [], messages: [], result },
    })
    if (method === 'GET')
      return done([...held.keys()].map((name) => ({ name, type: 'secret_text' })))
    if (method === 'DELETE')
      return held.delete(decodeURIComponent(found?.[2] ?? ''))
        ? done(null)
        : { status: 404, body: failed(10_056) }
    if (method !== 'PUT') return { status: 405, body: failed(10_405) }
    const { name, text, type } = body as { name: string; text: string; type: string }
    if (type !== 'secret_text' || text.length > 5120) return { status: 400, body: failed(10_021) }
    if (this.hollow) return { status: 200, body: failed(10_000) }
    held.set(name, text)
    return done({ name, type })
  }
}
