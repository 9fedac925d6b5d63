/**
 * A stateful fake of those services of AWS that speak JSON 1.1, behind real signatures:
 * Secrets Manager in aws-secrets.ts, the Parameter Store in
 * aws-parameters.ts. Errors are 400 with `__type`; throttling too.
 */
import { randomBytes } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Reply } from './aws-wire.ts'
import { readSignature } from './sigv4.ts'

export interface JsonFault {
  /** Such as `PutSecretValue`. */
  readonly operation: string
  /** `after`: the work is done first. `drop`: no answer at all. */
  readonly kind: 'error-before' | 'error-after' | 'drop-before' | 'drop-after' | 'garble-after'
  readonly status?: number
  readonly code?: string
  readonly message?: string
  readonly times?: number
}

export type Input = Readonly<Record<string, unknown>>

export abstract class FakeAwsJson {
  readonly accessKeyId = 'AKIAIOSFODNN7EXAMPLE'
  readonly secretAccessKey = randomBytes(30).toString('base64')
  readonly region = 'eu-central-1'
  sessionToken: string | undefined
  /** Every call that arrived, with what was asked. */
  readonly calls: { readonly operation: string; readonly input: Input }[] = []
  /**
   * What somebody else does just before, or just after, the next call of an operation is
   * carried out.
   */
  readonly others: {
    readonly operation: string
    readonly when: 'before' | 'after'
    readonly act: () => void
  }[] = []
  /** Operations that the key may not do. */
  readonly denied = new Set<string>()
  readonly faults: { fault: JsonFault; left: number }[] = []
  /** The service's own time, for signatures. */
  now: () => number = Date.now
  protected abstract readonly service: string
  protected abstract readonly target: string
  #server: Server | undefined

  get url(): string {
    const address = this.#server?.address() as AddressInfo
    return `http://127.0.0.1:${address.port}`
  }

  /** What an operator writes to reach it. */
  get config(): Readonly<Record<string, string>> {
    const { accessKeyId, secretAccessKey, region, url: endpoint } = this
    return { accessKeyId, secretAccessKey, region, endpoint }
  }

  fault(fault: JsonFault): void {
    this.faults.push({ fault, left: fault.times ?? 1 })
  }

  count(operation: string): number {
    return this.calls.filter((call) => call.operation === operation).length
  }

  async start(): Promise<this> {
    this.#server = createServer((request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => {
        const body = Buffer.concat(parts)
        const send = (status: number, answer: unknown): void => {
          response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' })
          response.end(typeof answer === 'string' ? answer : JSON.stringify(answer))
        }
        try {
          const [service, operation = ''] = String(request.headers['x-amz-target']).split('.')
          const input = JSON.parse(body.toString()) as Input
          this.calls.push({ operation, input })
          const entry = this.faults.find(
            ({ fault, left }) => fault.operation === operation && left > 0,
          )
          if (entry !== undefined) entry.left--
          const fault = entry?.fault
          const spoil = (when: 'before' | 'after'): boolean => {
            if (fault?.kind === `drop-${when}`) request.socket.destroy()
            else if (fault?.kind === `error-${when}`)
              throw new Reply(
                fault.status ?? 500,
                fault.code ?? 'InternalServiceError',
                fault.message ?? 'An error occurred on the server side.',
              )
            else return false
            return true
          }
          if (spoil('before')) return
          const signature = readSignature({
            method: request.method ?? '',
            target: request.url ?? '/',
            headers: request.headers,
            body,
          })
          this.#authenticate(signature, service, operation)
          if (request.headers['content-type'] !== 'application/x-amz-json-1.1')
            throw new Reply(400, 'SerializationException', 'content type')
          const elsewhere = (when: 'before' | 'after'): void => {
            const at = this.others.findIndex(
              (other) => other.operation === operation && other.when === when,
            )
            for (const { act } of at < 0 ? [] : this.others.splice(at, 1)) act()
          }
          elsewhere('before')
          const answer = this.perform(operation, input)
          elsewhere('after')
          if (spoil('after')) return
          send(200, fault?.kind === 'garble-after' ? '<html>' : answer)
        } catch (error) {
          if (error instanceof Reply)
            send(error.status, { __type: error.code, message: error.message })
          else send(500, { __type: 'FakeBroken', message: String(error) })
        }
      })
    })
    await new Promise<void>((resolve) => this.#server?.listen(0, '127.0.0.1', resolve))
    return this
  }

  async stop(): Promise<void> {
    this.#server?.closeAllConnections()
    await new Promise((resolve) => this.#server?.close(resolve))
  }

  /**
   * Names of these errors:
   * https://docs.aws.amazon.com/secretsmanager/latest/apireference/CommonErrors.html;
   * wordings are not to be relied on.
   */
  #authenticate(
    signature: ReturnType<typeof readSignature>,
    service: string | undefined,
    operation: string,
  ): void {
    if (signature === undefined)
      throw new Reply(400, 'MissingAuthenticationTokenException', 'Missing Authentication Token')
    if (service !== this.target) throw new Reply(400, 'UnknownOperationException', '')
    if (signature.accessKeyId !== this.accessKeyId || signature.sessionToken !== this.sessionToken)
      throw new Reply(
        400,
        'UnrecognizedClientException',
        'The security token included in the request is invalid.',
      )
    if (Math.abs(this.now() - signature.at) > 5 * 60_000)
      throw new Reply(
        400,
        'InvalidSignatureException',
        'Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z',
      )
    if (
      signature.service !== this.service ||
      signature.region !== this.region ||
      !signature.matches(this.secretAccessKey)
    )
      throw new Reply(
        400,
        'InvalidSignatureException',
        'The request signature we calculated does not match the signature you provided.',
      )
    if (this.denied.has(operation))
      throw new Reply(
        400,
        'AccessDeniedException',
        'User: arn:aws:iam::123456789012:user/rotate is not authorized to perform: ' +
          `${this.service}:${operation} because no identity-based policy allows it`,
      )
  }

  protected abstract perform(operation: string, input: Input): unknown
}
