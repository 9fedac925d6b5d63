/**
 * Proves through AWS STS that an access key lives, or that it is dead.
 *
 * GetCallerIdentity needs no permission:
 * https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
 *
 * AWS answers InvalidClientTokenId for an unknown, deleted or inactive key, and
 * SignatureDoesNotMatch for a wrong secret. For some seconds a new key is refused and a
 * deleted one is accepted:
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html
 */
import { MINUTE } from '../core/duration.ts'
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import { badAnswer, isRefusal } from './aws-errors.ts'
import { type AwsSite, pause, repeat, settings, short } from './aws.ts'
import type { AwsKey } from './aws-key.ts'

/**
 * How keys are proven. AWS does not say how long a change takes to spread, so one
 * accepted call does not mean that the key is accepted everywhere.
 */
const PROPAGATION = {
  /** This many accepted calls in a row count as proof of life. */
  successes: 3,
  /** The pause between accepted calls, as long as none was refused. */
  calmPauseMs: 500,
  /** The pause after a refused call, and while waiting for the end of a key. */
  pauseMs: 2000,
  /** The longest time for which anything is waited. */
  limitMs: MINUTE,
} as const

const ACTION = 'sts:GetCallerIdentity'

/** The owner of an access key. */
export interface AwsIdentity {
  readonly account: string
  readonly arn: string
  /** `undefined` for anything that is not an IAM user (root, an assumed role). */
  readonly userName: string | undefined
}

/**
 * Calls GetCallerIdentity, which needs no permission. So it proves that the key lives and
 * says to whom it belongs, not what it may do.
 */
async function callerIdentity(
  context: AdapterContext,
  site: AwsSite,
  key: AwsKey,
): Promise<AwsIdentity> {
  const { STSClient, GetCallerIdentityCommand } = await import('@aws-sdk/client-sts')
  const endpoint = site.stsEndpoint ?? site.endpoint
  const answer = await repeat(context, key, ACTION, 'read', (handler) =>
    new STSClient({ ...settings(key, site.region, endpoint), requestHandler: handler }).send(
      new GetCallerIdentityCommand({}),
    ),
  )
  if (answer.Account === undefined || answer.Arn === undefined)
    throw badAnswer(ACTION, 'read', 'without account and ARN')
  return {
    account: answer.Account,
    arn: answer.Arn,
    userName: /^arn:[^:]*:iam::\d*:user\/(?:.*\/)?([^/]+)$/.exec(answer.Arn)?.[1],
  }
}

/**
 * The account of a key; `undefined` where STS does not accept the key (a custom endpoint
 * may serve IAM only).
 */
export async function accountOf(
  context: AdapterContext,
  site: AwsSite,
  key: AwsKey,
): Promise<string | undefined> {
  try {
    return (await callerIdentity(context, site, key)).account
  } catch (error) {
    if (error instanceof AdapterError && (error.code === 'refused' || error.code === 'denied'))
      return undefined
    throw error
  }
}

/**
 * Returns once AWS accepts the key several times in a row. Throws `refused` when it still
 * does not after a minute. `check` is given the first answer of each row.
 */
export async function awaitLife(
  context: AdapterContext,
  site: AwsSite,
  key: AwsKey,
  check: (identity: AwsIdentity) => Promise<void>,
): Promise<void> {
  const start = context.clock.monotonic()
  let streak = 0
  let wasRefused = false
  for (;;) {
    const answer = await ask(context, site, key)
    if (answer instanceof AdapterError) {
      if (context.clock.monotonic() - start + PROPAGATION.pauseMs > PROPAGATION.limitMs)
        throw new AdapterError(
          'refused',
          `key ${short(key.accessKeyId)} is not accepted: ${answer.message}`,
          { details: answer.details },
        )
      if (!wasRefused)
        context.note(`waiting until AWS accepts the key ${short(key.accessKeyId)} everywhere`)
      wasRefused = true
      streak = 0
    } else {
      if (streak === 0) await check(answer)
      if (++streak === PROPAGATION.successes) return
    }
    await pause(context, wasRefused ? PROPAGATION.pauseMs : PROPAGATION.calmPauseMs, ACTION)
  }
}

/**
 * Throws `refused` once AWS does not know the key any more. Returns when the key still
 * works after a minute.
 */
export async function awaitDeath(
  context: AdapterContext,
  site: AwsSite,
  key: AwsKey,
): Promise<void> {
  const start = context.clock.monotonic()
  for (;;) {
    const answer = await ask(context, site, key)
    const refusal = answer instanceof AdapterError ? answer : undefined
    // A wrong signature means that AWS still knows the key id. So the key is not dead;
    // only the stored secret is wrong.
    const known = refusal === undefined || refusal.details['awsCode'] === 'SignatureDoesNotMatch'
    if (!known) throw refusal
    if (context.clock.monotonic() - start + PROPAGATION.pauseMs > PROPAGATION.limitMs) {
      if (refusal === undefined) return
      throw new AdapterError(
        'failed',
        `AWS still knows the key ${short(key.accessKeyId)}, though not with the secret stored here`,
      )
    }
    await pause(context, PROPAGATION.pauseMs, ACTION)
  }
}

async function ask(
  context: AdapterContext,
  site: AwsSite,
  key: AwsKey,
): Promise<AwsIdentity | AdapterError> {
  try {
    return await callerIdentity(context, site, key)
  } catch (error) {
    if (isRefusal(error)) return error
    throw error
  }
}
