/**
 * The outbox. The audit chain is the queue: each event stands in the commit of what it
 * tells, exactly once, and a notifier remembers up to which event it has been told. So
 * nothing can be promoted, undone or revoked without its notice being queued, and no step
 * of the engine knows that there are notices at all.
 *
 * Delivery is at least once: a notice is sent, then the commit says so; a process that
 * dies in between sends it again under the same id, that of its event. A notifier that
 * can't be reached is left alone for a pause that grows (a minute to a day) and loses
 * nothing; one notice that is refused for good is skipped after three rounds, with an
 * audit row. Nothing here fails a rotation.
 */
import { DAY, humanSpan, iso } from '../../core/duration.ts'
import { asAdapterError, RotateError } from '../../core/errors.ts'
import type { AuditEvent, RunRecord, Schedule, SecretRecord } from '../../core/model.ts'
import { currentVersion, versionOf } from '../../core/model.ts'
import type { Notice, NoticeType } from '../../core/notifier.ts'
import { parseConfig } from '../../core/schema.ts'
import { lastFailure } from '../../engine/machine.ts'
import { retryPause } from '../../engine/policy.ts'
import { loadProvider } from '../adapters/open.ts'
import type { Deps } from '../base/deps.ts'
import { send } from './notifiers.ts'
import { eventsSince, type NotifierSetting, notifierSettings, readyOf, typeOf } from './outbox.ts'
import { type RunView, viewOf } from '../runs/run-view.ts'

export interface Notified {
  readonly id: string
  readonly notifier: string
  readonly type: NoticeType
  readonly path: string
  readonly status: 'sent' | 'skipped'
}

/** Rounds after which a notice that is refused for good is skipped. */
const ROUNDS = 3
/** How many irrelevant events a notifier may skip before its position is saved. */
const IDLE = 200
/**
 * Pauses in milliseconds between the attempts of the last flush of a command, which may
 * take its time.
 */
const PATIENT = [1000, 4000]

/**
 * Sends every notifier the notices that it has not been told yet. `patient`: three
 * attempts each, for the end of a command; otherwise one, so that the next secret does
 * not wait. Throws only what ends every command: `tampered`, a full disk.
 */
export async function flush(deps: Deps, patient: boolean): Promise<readonly Notified[]> {
  const settings = await deps.vault.read((reader) => notifierSettings(reader))
  const ready = readyOf(settings, deps.clock.now())
  if (ready.length === 0) return []
  // Two processes that send the same notice would do no harm, but annoy people.
  const unlock = await deps.locks.tryNamed(
    `notices-${deps.vault.vaultId.toLowerCase().replace('_', '-')}`,
  )
  if (unlock === undefined) return []
  try {
    const events = await eventsSince(deps.vault, Math.min(...ready.map(([, { told }]) => told)))
    const notices: (readonly [AuditEvent, Notice, readonly string[]])[] = []
    for (const event of events) {
      const made = await noticeOf(deps, event)
      if (made !== undefined) notices.push([event, made.notice, made.notify])
    }
    const done: Notified[] = []
    for (const [name, setting] of ready)
      done.push(...(await tell(deps, name, setting, notices, events, patient)))
    return done
  } finally {
    unlock()
  }
}

/**
 * Tells one notifier everything that it has to be told, in order. Ends at the first
 * notice that does not get through.
 */
async function tell(
  deps: Deps,
  name: string,
  setting: NotifierSetting,
  notices: readonly (readonly [AuditEvent, Notice, readonly string[]])[],
  events: readonly AuditEvent[],
  patient: boolean,
): Promise<readonly Notified[]> {
  const done: Notified[] = []
  let { told } = setting
  let failure: { readonly message: string; readonly final: boolean } | undefined
  for (const [event, notice, notify] of notices) {
    if (event.seq <= told) continue
    if (notify.includes(name)) {
      failure = await attempt(deps, setting, notice, patient)
      const skip = failure?.final === true && setting.failures + 1 >= ROUNDS
      if (failure !== undefined && !skip) break
      done.push({
        id: notice.id,
        notifier: name,
        type: notice.type,
        path: notice.path,
        status: skip ? 'skipped' : 'sent',
      })
      if (skip)
        deps.note(
          `warning: notifier ${name} refuses a notice for good (${failure?.message ?? ''}); ` +
            'it is skipped',
        )
      failure = undefined
    }
    told = event.seq
  }
  if (failure === undefined) told = Math.max(told, events.at(-1)?.seq ?? 0)
  else deps.note(`warning: notifier ${name}: ${failure.message}; it will be told later`)
  // Events that do not concern a notifier are no reason to commit its position, until
  // there are so many of them that reading past them each time costs more.
  if (done.length > 0 || failure !== undefined || told - setting.told > IDLE)
    await remember(deps, name, told, done, failure?.message)
  return done
}

async function attempt(
  deps: Deps,
  setting: NotifierSetting,
  notice: Notice,
  patient: boolean,
): Promise<{ readonly message: string; readonly final: boolean } | undefined> {
  for (const pause of [...(patient ? PATIENT : []), undefined]) {
    try {
      await send(deps, setting, notice)
      return undefined
    } catch (thrown) {
      if (thrown instanceof RotateError) throw thrown
      const error = asAdapterError(thrown)
      if (pause === undefined || !error.retryable || deps.signal.aborted)
        return { message: error.message, final: !error.retryable }
      await deps.clock
        .sleep(Math.max(pause, error.retryAfterMs ?? 0), deps.signal)
        .catch(() => undefined)
    }
  }
  return undefined
}

/**
 * Saves what one notifier has been told, in one commit with the audit rows, however many
 * notices were sent.
 */
async function remember(
  deps: Deps,
  name: string,
  told: number,
  done: readonly Notified[],
  lastError: string | undefined,
): Promise<void> {
  await deps.vault.transact(async (tx) => {
    const settings = await notifierSettings(tx)
    const before = settings[name]
    if (before === undefined) return
    const { retryAt: _retry, lastError: _error, ...rest } = before
    const failures = lastError === undefined ? 0 : done.length > 0 ? 1 : before.failures + 1
    const after: NotifierSetting = {
      ...rest,
      told: Math.max(before.told, told),
      failures,
      ...(lastError === undefined
        ? {}
        : { retryAt: deps.clock.now() + retryPause(failures), lastError: lastError.slice(0, 300) }),
    }
    await tx.putDoc('notifiers', { ...settings, [name]: after })
    for (const { id, type, path, status } of done)
      tx.audit({
        action: 'notice_sent',
        path,
        actor: deps.actor,
        triggeredBy: 'automatic',
        status: status === 'sent' ? 'success' : 'failed',
        runId: null,
        metadata: { notifier: name, notice: type, id },
      })
  })
}

const TITLES: Readonly<Record<NoticeType, string>> = {
  upcoming: 'Upcoming Key Rotation',
  started: 'Key Rotation Started',
  succeeded: 'Key Rotation Complete',
  failed: 'Key Rotation Failed',
  rolled_back: 'Key Rotation Rolled Back',
  revoked: 'Old Key Revoked',
  held: 'Old Key Still Alive',
  needs_operator: 'Key Rotation Needs a Person',
  test: 'Test',
}

async function noticeOf(
  deps: Deps,
  event: AuditEvent,
): Promise<{ readonly notice: Notice; readonly notify: readonly string[] } | undefined> {
  const type = typeOf(event)
  const { path, runId } = event
  if (type === undefined || path === null) return undefined
  const { secret, run } = await deps.vault.read(async (reader) => ({
    secret: await reader.resolve(path),
    run: runId === null ? undefined : await reader.run(runId),
  }))
  const notify = secret?.schedule?.notify ?? []
  if (secret === undefined || notify.length === 0) return undefined
  const view = run === undefined ? undefined : viewOf(run, secret)
  const notice: Notice = {
    id: event.id,
    type,
    at: event.at,
    path,
    runId,
    urgent: type === 'failed' || type === 'rolled_back' || type === 'needs_operator',
    title: `${TITLES[type]}: ${path}`,
    facts: factsOf(type, event, secret, view, run),
    next:
      typeof event.metadata['next'] === 'string' && type === 'held'
        ? event.metadata['next']
        : nextOf(type, secret, run, type === 'upcoming' && (await isMadeByHand(secret.schedule))),
    command: runId === null ? `rotate history ${path}` : `rotate audit list --run ${runId}`,
  }
  return { notice, notify }
}

function factsOf(
  type: NoticeType,
  event: AuditEvent,
  secret: SecretRecord,
  view: RunView | undefined,
  run: RunRecord | undefined,
): Notice['facts'] {
  const facts: { label: string; value: string }[] = [{ label: 'Service', value: secret.path }]
  const add = (label: string, value: string | null | undefined): void => {
    if (value !== null && value !== undefined && value !== '') facts.push({ label, value })
  }
  const text = (key: string): string | undefined => {
    const value = event.metadata[key]
    return typeof value === 'string' || typeof value === 'number' ? String(value) : undefined
  }
  const { schedule } = secret
  if (type === 'upcoming') {
    add('Current key', currentVersion(secret)?.hint)
    add('Next rotation', text('next'))
    add('In', text('in'))
    return facts
  }
  if (type === 'revoked') {
    add('Revoked key', text('old_key'))
    add('Proof', text('proof'))
    add('Next rotation', nextDate(schedule))
    return facts
  }
  if (type === 'held') {
    add('Old key', text('old_key'))
    add('Reason', text('error'))
    return facts
  }
  add('Old key', view?.old?.hint)
  if (type === 'started') {
    add('Triggered by', event.triggeredBy)
    return facts
  }
  add('New key', view?.new?.hint)
  if (view !== undefined && view.targets.length > 0) {
    const updated = view.targets.filter(({ status }) => status === 'updated').length
    add('Services updated', `${updated}/${view.targets.length}`)
  }
  if (type === 'succeeded') {
    const until = view?.grace?.until
    const old = run?.plan.oldVersion ?? null
    if (until !== undefined && run !== undefined && old !== null) {
      const span = humanSpan(run.plan.graceMs)
      const ends = versionOf(secret, old)?.revocable === true
      add(
        'Grace period',
        ends
          ? `${span}: the old key works until ${until}`
          : `${span}, until ${until}; nobody revokes the old key from here: if it lives on ` +
              'at its provider, end it there',
      )
    }
    add('Next rotation', nextDate(schedule))
  } else {
    add('Reason', text('error') ?? text('at'))
    const verified = event.metadata['verified']
    // Where nothing had been touched there was nothing to prove.
    if (type === 'rolled_back' && verified !== undefined)
      add('Old key proven to work', verified === true ? 'yes' : 'no')
  }
  add('Triggered by', event.triggeredBy)
  return facts
}

function nextDate(schedule: Schedule | undefined): string | undefined {
  return schedule?.status === 'active' ? iso(schedule.nextAt) : undefined
}

/**
 * Does a person make the values? `false` where the configuration can't be read any more.
 */
async function isMadeByHand(schedule: Schedule | undefined): Promise<boolean> {
  if (schedule === undefined) return false
  try {
    const provider = await loadProvider(schedule.provider.id)
    return (
      provider.traits(parseConfig(provider.config, schedule.provider.config, 'it')).mints ===
      'person'
    )
  } catch (thrown) {
    if (thrown instanceof RotateError) return false
    throw thrown
  }
}

/**
 * What the reader of the notice can do, in one line; `null` where there is nothing to do.
 */
function nextOf(
  type: NoticeType,
  secret: SecretRecord,
  run: RunRecord | undefined,
  byHand: boolean,
): string | null {
  switch (type) {
    case 'upcoming':
      return byHand
        ? 'make the new value (leave the old one alive) and hand it over: rotate now ' +
            `${secret.path} - reads it from stdin, or asks for it`
        : `nothing; to postpone: rotate schedule skip ${secret.path} --for 30d`
    case 'failed':
      return (
        `look at it: rotate history ${run?.id ?? secret.path}; the schedule tries again by ` +
        'itself'
      )
    case 'rolled_back':
      return (
        'nothing is broken: the old key is current; look at it: rotate history ' +
        `${run?.id ?? secret.path}`
      )
    case 'held':
      return `nothing, if it passes: it is tried again; look at it: rotate show ${secret.path}`
    case 'needs_operator':
      // A run that is closed has nothing to decide: its value is missing, and its
      // provider says how it is made.
      if (run?.status === 'failed') return lastFailure(run)?.failure.hints.join('; ') ?? null
      return (
        `decide: rotate resume ${run?.id ?? 'RUN'} --keep old, or --keep new; nothing more ` +
        'is revoked until then'
      )
    default:
      return null
  }
}

/**
 * Queues the warning that a rotation is coming, if one is due now, and remembers it in
 * the same commit. `isWarningDue` (core/wake.ts) has said before that one is due; here it
 * is checked again on the record that is changed. Returns whether a warning was queued.
 */
export async function announce(deps: Deps, id: string): Promise<boolean> {
  const now = deps.clock.now()
  return deps.vault.transact(async (tx) => {
    const secret = await tx.secret(id)
    const { schedule } = secret ?? {}
    if (
      secret === undefined ||
      schedule === undefined ||
      schedule.status !== 'active' ||
      secret.deletedAt !== undefined
    )
      return false
    if (schedule.notify.length === 0 || schedule.nextAt <= now) return false
    const already =
      schedule.noticed?.nextAt === schedule.nextAt
        ? schedule.noticed.before
        : Number.POSITIVE_INFINITY
    // Of several warnings that have come due at once only the last is queued.
    const due = schedule.notifyBefore.filter(
      (before) => before > 0 && before < already && schedule.nextAt - before <= now,
    )
    if (due.length === 0) return false
    await tx.putSecret({
      ...secret,
      schedule: { ...schedule, noticed: { nextAt: schedule.nextAt, before: Math.min(...due) } },
    })
    tx.audit({
      action: 'notice_sent',
      path: secret.path,
      actor: deps.actor,
      triggeredBy: 'automatic',
      status: 'pending',
      runId: null,
      metadata: {
        notice: 'upcoming',
        next: iso(schedule.nextAt),
        in: humanSpan(Math.max(DAY / 24, schedule.nextAt - now)),
      },
    })
    return true
  })
}
