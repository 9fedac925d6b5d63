/** The credential that signs a call to AWS, and whether the call may be repeated. */
import type { Secret } from '../core/secret.ts'

export interface AwsKey {
  readonly accessKeyId: string
  readonly secretAccessKey: Secret
  readonly sessionToken?: Secret
}

/** Whether the call may be repeated, as in `HttpRequest.effect`. */
export type AwsEffect = 'read' | 'idempotent' | 'once'
