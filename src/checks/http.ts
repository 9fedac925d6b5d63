/**
 * An HTTP request whose status says whether things work. Without a header that presents
 * the value it shows only that the service answers.
 *
 * The HTTP client does not repeat the request, because the engine repeats a red check as
 * long as the check allows (`within`). The client refuses to follow redirects, but a
 * redirect may be the expected status. With `samples` the request is made several times,
 * one second apart and each time on a new connection: a single green answer proves little
 * where several machines answer, or where one is not stable.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import { urlField } from '../core/schema.ts'
import { type Fields, flatten } from '../core/secret.ts'
import { type CheckOutcome, defineCheck } from '../core/target.ts'

const MAX_BYTES = 8 * 1024 * 1024
const TIMEOUT_MS = 15_000
const BETWEEN_MS = 1000
const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const PLACEHOLDER = /\{([A-Za-z][A-Za-z0-9_]*)\}/g

const status = z.int().min(100).max(599)
const headerText = z
  .string()
  .refine((text) => NAME.test(splitHeader(text).name), 'is not a header name, or "Name: template"')

const Config = z
  .strictObject({
    url: urlField('Address that is asked; https, or http to this machine'),
    method: z.enum(['GET', 'HEAD', 'POST']).optional().meta({ description: 'Default GET' }),
    expectedStatus: z
      .union([status, z.array(status).min(1)])
      .optional()
      .meta({ description: 'Status that is green, or several; default 200' }),
    header: z
      .union([headerText, z.record(z.string().regex(NAME, 'is not a header name'), z.string())])
      .optional()
      .meta({
        description:
          'How the value is presented: "X-Api-Key", "Authorization: Bearer {value}", ' +
          '{"Authorization": "Bearer {field}"}',
      }),
    samples: z
      .int()
      .min(2)
      .max(20)
      .optional()
      .meta({ description: 'How often it is asked, a second apart; default once' }),
    need: z
      .int()
      .min(1)
      .max(20)
      .optional()
      .meta({ description: 'How many of the samples must be green; default all' }),
  })
  .superRefine(({ samples, need }, context) => {
    if (need === undefined) return
    const message =
      samples === undefined
        ? 'needs "samples"'
        : need > samples
          ? 'is more than "samples"'
          : undefined
    if (message !== undefined) context.addIssue({ code: 'custom', path: ['need'], message })
  })
type Options = z.output<typeof Config>

export default defineCheck({
  id: 'http',
  title: 'HTTP request',
  config: Config,
  presents: (config) => headersOf(config).some(([, template]) => template.search(PLACEHOLDER) >= 0),
  describe: (config) => {
    const url = new URL(config.url)
    return `${config.method ?? 'GET'} ${url.origin}${url.pathname}`
  },
  run: async (config, fields, context) => {
    const expected = [config.expectedStatus ?? 200].flat()
    const headers = Object.fromEntries(
      headersOf(config).map(([name, template]) => [name, filled(name, template, fields)]),
    )
    const request = {
      method: config.method ?? 'GET',
      url: config.url,
      headers,
      maxBytes: MAX_BYTES,
      timeoutMs: TIMEOUT_MS,
      signal: context.signal,
    }
    const judged = (got: number): CheckOutcome =>
      expected.includes(got)
        ? { ok: true, detail: String(got) }
        : { ok: false, detail: `${got} instead of ${expected.join(' or ')}` }
    const sample = async (): Promise<CheckOutcome> => {
      try {
        const response = await context.http.send({ ...request, effect: 'read', attempts: 1 })
        return judged(response.status)
      } catch (thrown) {
        if (!(thrown instanceof AdapterError) || thrown.code === 'misconfigured') throw thrown
        const got = thrown.details['status']
        return typeof got === 'number' && expected.includes(got) && got >= 300
          ? judged(got)
          : { ok: false, detail: thrown.message }
      }
    }
    if (config.samples === undefined) return sample()
    return sampleSeveral(sample, config.samples, config.need ?? config.samples, context)
  },
})

/**
 * Asks several times. The result is green as soon as `need` of `count` answers are green,
 * and red as soon as that is impossible.
 */
async function sampleSeveral(
  sample: () => Promise<CheckOutcome>,
  count: number,
  need: number,
  { clock, signal }: Pick<AdapterContext, 'clock' | 'signal'>,
): Promise<CheckOutcome> {
  let green = 0
  for (let asked = 1; ; asked++) {
    const { ok, detail } = await sample()
    if (ok) green++
    if (green >= need) return { ok: true, detail: `${detail}, ${green} of ${asked} green` }
    if (asked - green > count - need)
      return {
        ok: false,
        detail: `${detail}, ${green} of ${asked} green, ${need} of ${count} are needed`,
      }
    await clock.sleep(BETWEEN_MS, signal)
  }
}

function splitHeader(text: string): { name: string; template: string } {
  const colon = text.indexOf(':')
  return colon < 0
    ? { name: text, template: '{value}' }
    : { name: text.slice(0, colon).trim(), template: text.slice(colon + 1).trim() }
}

function headersOf(config: Options): [string, string][] {
  if (config.header === undefined) return []
  if (typeof config.header !== 'string') return Object.entries(config.header)
  const { name, template } = splitHeader(config.header)
  return [[name, template]]
}

/**
 * The text of a header. `{value}` stands for the value (all fields as JSON where there
 * are several and none is called "value"), `{accessKeyId}` for the field of that name.
 */
function filled(name: string, template: string, fields: Fields): string {
  const text = template.replaceAll(PLACEHOLDER, (_whole, field: string) => {
    const part = Object.hasOwn(fields, field)
      ? fields[field]
      : field === 'value'
        ? flatten(fields)
        : undefined
    if (part === undefined)
      throw new AdapterError(
        'misconfigured',
        `header ${name} wants the field {${field}}, which the secret does not have ` +
          `(${Object.keys(fields).join(', ')})`,
      )
    return part.reveal()
  })
  // The HTTP client would refuse it too, but this message names the setting of the check.
  if (/[\r\n\0]/.test(text))
    throw new AdapterError(
      'misconfigured',
      `the value has a line break and can't be presented in header ${name}`,
    )
  return text
}
