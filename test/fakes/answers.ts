/**
 * What a call can be answered with, as the engine sees it. Answers at the wire that leave
 * the engine with the same knowledge share one name; `wire` lists them. There are also
 * answers that are not true. What the HTTP client makes of each wire answer is tested
 * with the client.
 */
import { type AdapterCode, AdapterError, type Effect } from '../../src/core/errors.ts'

export interface Answer {
  /** What it stands for at the wire. */
  readonly wire: string
  /** Is the work done before the answer? */
  readonly done: boolean
  /** The code of the adapter's error; without one the call succeeds. */
  readonly code?: AdapterCode
  /** The effect that the error of a write has. A read that fails did nothing. */
  readonly effect?: Effect
  readonly retryable?: boolean
  readonly retryAfterMs?: number
  /** The far side answered this very call itself. */
  readonly answered?: true
  /** The work is done this long after the caller has given up. */
  readonly lateMs?: number
  /** How long the answer takes. */
  readonly slowMs?: number
  /** The only methods that can be answered so. */
  readonly only?: readonly string[]
  /** Only for writes, since at a read it would say the same as another answer. */
  readonly writes?: true
  /** The far side says what is not true. */
  readonly lie?: true
}

const DAY = 86_400_000

const answers = {
  unreachable: {
    wire: 'connection refused, no such host, bad certificate, connect timeout',
    done: false,
    code: 'unreachable',
    effect: 'none',
  },
  vague: { wire: 'no answer, not done', done: false, code: 'timeout', effect: 'unknown' },
  lost: {
    wire: 'no answer, done; reset before or inside the answer, done; 504, done',
    done: true,
    code: 'timeout',
    effect: 'unknown',
  },
  final: {
    wire: '400, 422, a redirect to a foreign host',
    done: false,
    code: 'failed',
    effect: 'none',
  },
  denied: { wire: '401, 403', done: false, code: 'denied', effect: 'none' },
  missing: { wire: '404', done: false, code: 'missing', effect: 'none' },
  full: { wire: '409, a limit', done: false, code: 'quota', effect: 'none', only: ['create'] },
  throttle: {
    wire: '429 with Retry-After',
    done: false,
    code: 'throttled',
    effect: 'none',
    retryAfterMs: 2000,
  },
  'throttle-long': {
    wire: '429 with an absurd Retry-After',
    done: false,
    code: 'throttled',
    effect: 'none',
    retryAfterMs: 100 * DAY,
  },
  'error-before': {
    wire: '500, not done',
    done: false,
    code: 'unavailable',
    effect: 'unknown',
    retryable: false,
    answered: true,
    writes: true,
  },
  'error-after': {
    wire: '500, done',
    done: true,
    code: 'unavailable',
    effect: 'unknown',
    retryable: false,
    answered: true,
    writes: true,
  },
  fail: { wire: '502, 503', done: false, code: 'unavailable', effect: 'none' },
  garbled: {
    wire: '200 that is empty, HTML, cut, of the wrong shape, endless',
    done: true,
    code: 'bad-answer',
    effect: 'unknown',
  },
  slow: { wire: '200, one byte per second', done: true, slowMs: 25_000 },
  echo: { wire: '200 with the old value', done: true, only: ['create'] },
  hostile: { wire: '200 with a hostile value', done: true, only: ['create'] },
  refused: {
    wire: 'a credential that is not accepted yet',
    done: false,
    code: 'refused',
    effect: 'none',
    only: ['verify', 'preflight'],
  },
  stale: { wire: '200 with a listing that lags behind', done: true, only: ['list'] },
  hollow: { wire: '200, not done', done: true, writes: true, lie: true },
  liar: { wire: '400, done', done: true, code: 'failed', effect: 'none', writes: true, lie: true },
  late: {
    wire: 'no answer, done 40 s later',
    done: false,
    code: 'timeout',
    effect: 'unknown',
    lateMs: 40_000,
    only: ['create', 'put', 'restore'],
  },
  'late-beyond': {
    wire: 'no answer, done three hours later',
    done: false,
    code: 'timeout',
    effect: 'unknown',
    lateMs: 3 * 3_600_000,
    only: ['create'],
  },
  repeated: {
    wire: 'no answer, repeated and answered 200; the first attempt is done once more 40 s later',
    done: true,
    only: ['put'],
  },
  bug: { wire: 'an error that is no answer', done: false },
} as const satisfies Readonly<Record<string, Answer>>

export type FaultMode = keyof typeof answers

/** The answers that say something at this call. */
export function answersTo(method: string, writes: boolean): readonly FaultMode[] {
  const all = Object.entries(answers) as [FaultMode, Answer][]
  return all
    .filter(
      ([, answer]) =>
        answer.lateMs === undefined &&
        (answer.only === undefined || answer.only.includes(method)) &&
        (writes || answer.writes !== true),
    )
    .filter(([mode]) => writes || mode !== 'lost')
    .map(([mode]) => mode)
}

export function answerOf(mode: FaultMode): Answer {
  return answers[mode]
}

export function errorOf(answer: Answer, method: string, effect: 'read' | 'write'): AdapterError {
  return new AdapterError(answer.code ?? 'failed', `${method}: ${answer.wire}`, {
    effect: effect === 'read' ? 'none' : (answer.effect ?? 'none'),
    ...(answer.answered === true && effect === 'write' ? { answered: true } : {}),
    ...(answer.retryable === undefined ? {} : { retryable: answer.retryable }),
    ...(answer.retryAfterMs === undefined ? {} : { retryAfterMs: answer.retryAfterMs }),
  })
}
