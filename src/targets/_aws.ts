/**
 * The configuration that the targets at AWS share: the key that signs the calls, and the
 * region.
 */
import { z } from 'zod'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import type { Secret } from '../core/secret.ts'
import { signingKey } from '../net/aws.ts'
import { type AwsJson, awsJson, type AwsJsonSite } from '../net/aws-json.ts'

export const awsFields = {
  accessKeyId: secretField('Access key id of the credential that writes'),
  secretAccessKey: secretField('Secret access key of that credential'),
  sessionToken: secretField('Session token, if that credential is temporary').optional(),
  region: z
    .string()
    .regex(/^[a-z]{2,4}(-[a-z]+)+-\d{1,2}$/, 'is not an AWS region such as us-east-1')
    .meta({ description: 'Region', examples: ['eu-central-1'] }),
  endpoint: urlField('Base URL in place of that of AWS').optional(),
}

interface AwsOptions {
  readonly accessKeyId: Secret
  readonly secretAccessKey: Secret
  readonly sessionToken?: Secret | undefined
  readonly region: string
  readonly endpoint?: string | undefined
}

/** @param rights what the credential needs, for the hint where it lacks something */
export function awsClient(
  context: AdapterContext,
  config: AwsOptions,
  service: AwsJsonSite['service'],
  rights: string,
): AwsJson {
  const key = signingKey(
    config.accessKeyId,
    config.secretAccessKey,
    config.sessionToken,
    'the configured',
  )
  return awsJson(
    context,
    { service, region: config.region, endpoint: config.endpoint, rights },
    key,
  )
}

/**
 * Pauses between looks at the result of a write, because AWS promises for neither service
 * that a read shows the write before it.
 */
export const LOOK_PAUSES_MS = [500, 1500, 3000]
