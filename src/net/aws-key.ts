/** What a call of AWS is signed with, and whether it may be repeated. */
import type { Secret } from '../core/secret.ts'

export interface AwsKey {
  readonly accessKeyId: string
  readonly secretAccessKey: Secret
  readonly sessionToken?: Secret
}

/** May the call be repeated? As `HttpRequest.effect`. */
export type AwsEffect = 'read' | 'idempotent' | 'once'
