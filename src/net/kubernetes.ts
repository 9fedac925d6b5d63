/**
 * Calls to the API of a Kubernetes cluster by plain REST
 * (https://kubernetes.io/docs/reference/using-api/api-concepts/). The official client is
 * large and does not load on every supported Node.
 */
import { type AdapterCode, AdapterError } from '../core/errors.ts'
import type { HttpRequest } from '../core/ports.ts'
import type { AdapterContext } from '../core/provider.ts'
import type { Secret } from '../core/secret.ts'
import { parseObject } from './json.ts'
import { retryAfterMs } from './retry.ts'
import { pickDefined } from '../core/defined.ts'

/** A Secret has about one mebibyte at most, which is more in base64. */
const MAX_ANSWER_BYTES = 8 * 1024 * 1024

export interface Cluster {
  readonly server: string
  readonly token?: Secret
  readonly tls: NonNullable<HttpRequest['tls']>
}

interface Patch {
  readonly type: 'application/merge-patch+json' | 'application/strategic-merge-patch+json'
  readonly body: unknown
}

export type KubeObject = Readonly<Record<string, unknown>>

export interface Kubernetes {
  get(path: string): Promise<KubeObject>
  patch(path: string, patch: Patch): Promise<KubeObject>
  /** Sent once, unless `effect` says that it changes nothing. */
  post(path: string, body: unknown, effect?: 'read' | 'once'): Promise<KubeObject>
  /**
   * Deletes this object only in exactly this state; otherwise the call fails with the
   * reason `Conflict`.
   */
  delete(
    path: string,
    only: { readonly uid: string; readonly resourceVersion: string },
  ): Promise<KubeObject>
}

export function kubernetes(cluster: Cluster, context: AdapterContext): Kubernetes {
  const call = async (
    method: 'GET' | 'PATCH' | 'POST' | 'DELETE',
    path: string,
    effect: HttpRequest['effect'],
    sent?: { type: string; body: unknown },
  ) => {
    const { status, headers, body } = await context.http.send({
      method,
      url: `${cluster.server.replace(/\/$/, '')}${path}`,
      headers: {
        accept: 'application/json',
        ...(cluster.token === undefined
          ? {}
          : { authorization: `Bearer ${cluster.token.reveal()}` }),
        ...(sent === undefined ? {} : { 'content-type': sent.type }),
      },
      ...(sent === undefined ? {} : { body: JSON.stringify(sent.body) }),
      effect,
      tls: cluster.tls,
      maxBytes: MAX_ANSWER_BYTES,
      signal: context.signal,
    })
    const answer = body.isText() ? parseObject(body.reveal()) : undefined
    if (status >= 200 && status < 300) {
      if (answer !== undefined) return answer
      throw new AdapterError('bad-answer', `Kubernetes answered ${status}, but not with JSON`, {
        effect: effect === 'read' ? 'none' : 'unknown',
      })
    }
    throw refusal(status, answer, effect, retryAfterMs(headers['retry-after'], context.clock.now()))
  }
  return {
    get: (path) => call('GET', path, 'read'),
    patch: (path, patch) => call('PATCH', path, 'idempotent', patch),
    post: (path, body, effect = 'once') =>
      call('POST', path, effect, { type: 'application/json', body }),
    delete: (path, preconditions) =>
      call('DELETE', path, 'idempotent', {
        type: 'application/json',
        body: { apiVersion: 'v1', kind: 'DeleteOptions', preconditions },
      }),
  }
}

const CODES: Readonly<Record<number, AdapterCode>> = {
  401: 'denied',
  403: 'denied',
  404: 'missing',
  422: 'misconfigured',
  429: 'throttled',
}

/**
 * The error for a refusal. Of the text of a `Status` only the missing right is shown: the
 * rest, and the text of an admission hook, may quote what was sent.
 */
function refusal(
  status: number,
  answer: KubeObject | undefined,
  effect: HttpRequest['effect'],
  wait: number | undefined,
): AdapterError {
  const { reason, message } = answer ?? {}
  const named = typeof reason === 'string' && /^[A-Za-z]{2,40}$/.test(reason) ? ` (${reason})` : ''
  const right =
    typeof message === 'string'
      ? / cannot [a-z]+ resource "[a-z./]{1,80}"/.exec(message)?.[0]
      : undefined
  const said = status === 403 && right !== undefined ? `: the account${right}` : ''
  // A 404 or 5xx may come from a load balancer and not from the cluster. It has changed
  // nothing, unless it is a 5xx whose request may have been passed on.
  const done = status >= 500 && effect !== 'read' ? 'unknown' : 'none'
  return new AdapterError(
    status >= 500 ? 'unavailable' : (CODES[status] ?? 'failed'),
    `Kubernetes answered ${status}${named}${said}`,
    {
      effect: done,
      details: { status, reason: named === '' ? null : reason },
      ...(status === 401
        ? { hints: ['the token, or the certificate, is not accepted: it may have expired'] }
        : {}),
      ...pickDefined({ retryAfterMs: wait }),
    },
  )
}
