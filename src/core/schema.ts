/**
 * Schemas of configurations: the secret field, messages that name the field and never the
 * value, and JSON Schema.
 */
import { z } from 'zod'
import { usage } from './errors.ts'
import type { ConfigValue } from './model.ts'
import { Secret } from './secret.ts'

/**
 * A reference to a secret in the vault, written
 * `{"secret":"infra/stripe/ADMIN_KEY","field":"…"}`.
 */
export class SecretRef {
  readonly path: string
  readonly field: string | undefined
  constructor(path: string, field: string | undefined) {
    this.path = path
    this.field = field
  }
}

/**
 * A field that holds a secret, either as a literal, which is wrapped and masked from then
 * on, or as a reference to another secret of the vault. Its output is a `Secret` once
 * `resolveRefs` has run, which is the only form that adapters see.
 */
export function secretField(
  description: string,
): z.ZodType<Secret, string | { secret: string; field?: string | undefined }> {
  const schema = z
    .union([
      z.string().min(1),
      z.strictObject({
        secret: z.string().min(1).meta({ description: 'path of another secret in the vault' }),
        field: z.string().min(1).optional().meta({ description: 'which of its fields' }),
      }),
    ])
    .transform((value) =>
      typeof value === 'string'
        ? new Secret(value)
        : (new SecretRef(value.secret, value.field) as unknown as Secret),
    )
  return schema.meta({ description, secret: true }) as unknown as z.ZodType<
    Secret,
    string | { secret: string; field?: string | undefined }
  >
}

/**
 * A field that holds an absolute URL: `https:`, or plain `http:` to loopback only,
 * without user name or password and without a link-local metadata address.
 */
export function urlField(description: string): z.ZodType<string, string> {
  return z
    .string()
    .superRefine((value, context) => {
      const fault = urlFault(value)
      if (fault !== undefined) context.addIssue({ code: 'custom', message: fault })
    })
    .meta({ description, format: 'uri' })
}

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/

/**
 * Why this URL is refused, or `undefined`. The HTTP client applies the same rule to the
 * address to which it connects.
 */
export function urlFault(value: string): string | undefined {
  let url: URL
  try {
    url = new URL(value)
  } catch {
    return 'is not an absolute URL'
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:')
    return `has the scheme ${url.protocol} (use https:)`
  if (url.username !== '' || url.password !== '')
    return 'contains a user name or password (put credentials into their own field)'
  if (url.protocol === 'http:' && !LOOPBACK.test(url.hostname))
    return 'is plain http to a host that is not loopback (use https:)'
  if (
    /^169\.254\.|^\[fe80:|^\[fd00:ec2:|^metadata\.google\.internal$|^100\.100\.100\.200$/i.test(
      url.hostname,
    )
  )
    return 'is a link-local metadata address'
  if (url.port === '0') return 'has port 0'
  return undefined
}

/** Deeply replaces every `Secret` by its text, for a schema to parse. */
export function unwrapConfig(value: ConfigValue): unknown {
  if (value instanceof Secret) return value.reveal()
  if (Array.isArray(value)) return value.map((item: ConfigValue) => unwrapConfig(item))
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, unwrapConfig(item as ConfigValue)]),
    )
  }
  return value
}

/**
 * Parses configuration as written. Throws `usage` naming the first field at fault, the
 * reason, and the fix; never a value.
 * @param what for the message, such as `--config of provider aws`
 */
export function parseConfig(schema: z.ZodType, value: ConfigValue, what: string): unknown {
  const result = schema.safeParse(unwrapConfig(value))
  if (result.success) return result.data
  throw usage(`${what}: ${issueText(result.error.issues)}`)
}

function issueText(issues: readonly z.core.$ZodIssue[]): string {
  const issue = issues[0]
  if (issue === undefined) return 'is not valid'
  const where = issue.path.length === 0 ? '' : `field "${issue.path.map(String).join('.')}" `
  if (issue.code === 'unrecognized_keys')
    return `${where}has the unknown key ${issue.keys.map((key) => `"${key}"`).join(', ')}`
  if (issue.code === 'invalid_type')
    return `${where}must be a ${issue.expected}${isMissing(issue) ? ' (it is missing)' : ''}`
  if (issue.code === 'invalid_union') {
    if (
      issue.errors.length > 0 &&
      issue.errors.every(([first]) => first !== undefined && isMissing(first))
    )
      return `${where}is missing`
    const options = 'options' in issue ? (issue.options ?? []) : []
    const choices = options.flatMap((option) =>
      option === undefined ? [] : [`"${String(option)}"`],
    )
    return choices.length === 0
      ? `${where}has none of the allowed forms`
      : `${where}must be ${choices.join(' or ')}`
  }
  return `${where}${issue.message}`
}

function isMissing(issue: z.core.$ZodIssue): boolean {
  return issue.message.includes('received undefined')
}

/**
 * Wraps every part of the written configuration that the schema takes as secret, so that
 * it stays masked.
 */
export function wrapConfig(written: unknown, parsed: unknown): ConfigValue {
  if (parsed instanceof Secret)
    return typeof written === 'string' ? new Secret(written) : (written as ConfigValue)
  if (parsed instanceof SecretRef) return written as ConfigValue
  if (Array.isArray(written))
    return written.map((item: unknown, i) =>
      wrapConfig(item, Array.isArray(parsed) ? parsed[i] : undefined),
    )
  if (written !== null && typeof written === 'object') {
    const from =
      parsed !== null && typeof parsed === 'object' ? (parsed as Record<string, unknown>) : {}
    return Object.fromEntries(
      Object.entries(written).map(([key, item]) => [key, wrapConfig(item, from[key])]),
    )
  }
  return written as ConfigValue
}

/** Replaces every reference by the secret that `lookup` returns. */
export async function resolveRefs(
  parsed: unknown,
  lookup: (ref: SecretRef) => Promise<Secret>,
): Promise<unknown> {
  if (parsed instanceof SecretRef) return lookup(parsed)
  if (parsed instanceof Secret) return parsed
  if (Array.isArray(parsed))
    return Promise.all(parsed.map((item: unknown) => resolveRefs(item, lookup)))
  if (parsed !== null && typeof parsed === 'object') {
    const entries = await Promise.all(
      Object.entries(parsed).map(
        async ([key, item]) => [key, await resolveRefs(item, lookup)] as const,
      ),
    )
    return Object.fromEntries(entries)
  }
  return parsed
}

/** Configuration for display: secrets as `[secret]`, references as they are written. */
export function maskConfig(value: ConfigValue): unknown {
  if (value instanceof Secret) return '[secret]'
  if (Array.isArray(value)) return value.map((item: ConfigValue) => maskConfig(item))
  if (value !== null && typeof value === 'object')
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, maskConfig(item as ConfigValue)]),
    )
  return value
}

/** The JSON Schema of what may be written. */
export function jsonSchema(schema: z.ZodType): unknown {
  return z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' })
}
