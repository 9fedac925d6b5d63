/**
 * How runs are shown: to people as steps on stderr while they happen and the result on
 * stdout, to scripts as lines of JSON.
 */
import type { Progress } from '../../app/rotation/rotate.ts'
import { type RunView, wordsOf } from '../../app/runs/run-view.ts'
import type { Context } from '../context.ts'

/** How a target was put back, in words. */
const PUT_BACK: Readonly<Record<string, string>> = {
  'read back': 'its value was put back, and read back',
  written: 'its value was put back',
  told: 'it was told the old version',
  'told-none': 'it was told that there is no old version',
  delivered: "it was given the old version's value; what stood there can't be read",
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)}s`
}

/**
 * Writes the lines of `--events` to stdout, one JSON document each: steps, and at the end
 * a `summary`.
 */
export class Events {
  readonly #ctx: Context
  #seq = 0
  #runId: string | null = null

  constructor(ctx: Context) {
    this.#ctx = ctx
  }

  /** The line of a step. A delivery that is no run has no id. */
  step({ path, step, status, ms, detail, runId }: Progress): void {
    this.emit(
      'step',
      { path, step, status, ms: ms === undefined ? null : Math.round(ms), detail: detail ?? null },
      runId === '' ? null : runId,
    )
  }

  emit(
    type: 'step' | 'summary',
    body: Readonly<Record<string, unknown>>,
    runId: string | null = this.#runId,
  ): void {
    this.#seq++
    this.#runId = runId
    const line = {
      type,
      runId,
      seq: this.#seq,
      at: new Date(this.#ctx.clock.now()).toISOString(),
      ...body,
    }
    this.#ctx.out.raw(`${JSON.stringify(line)}\n`)
  }
}

/** Shows progress: a line per finished step on stderr, or events on stdout. */
export function progressPrinter(
  ctx: Context,
  events: Events | undefined,
): (event: Progress) => void {
  let last = ''
  return (event) => {
    if (events !== undefined) {
      events.step(event)
      return
    }
    if (event.status === 'started') {
      // A delivery that is no run has no id.
      if (event.runId === '') {
        if (last !== event.path)
          ctx.out.note(`${event.path}  (no new version; Ctrl-C is safe at any point)`)
        last = event.path
        return
      }
      if (last !== event.runId)
        ctx.out.note(`${event.path}  (${event.runId}; Ctrl-C is safe at any point)`)
      last = event.runId
      return
    }
    // Steps that have nothing to do for this provider or target are only in the journal.
    const undone = event.step.startsWith('restore:')
    if (event.status === 'done' && event.detail !== undefined && !undone && ctx.out.verbose === 0)
      return
    const ok = event.status === 'done'
    const took = event.ms === undefined || event.ms < 100 ? '' : `  ${seconds(event.ms)}`
    const detail = event.detail === undefined ? '' : `: ${PUT_BACK[event.detail] ?? event.detail}`
    ctx.out.note(
      '  ',
      ok ? { text: 'ok    ', style: 'green' } : { text: 'failed', style: 'red' },
      ` ${wordsOf(event.step)}${took}${detail}`,
    )
  }
}

/**
 * Shows what runs came to: with `--events` as the line `summary`, otherwise as the `data`
 * of `--json` or as lines for people. Without `data` there is nothing to print for
 * `--json`.
 */
export function showRuns(
  ctx: Context,
  events: Events | undefined,
  runs: readonly RunView[],
  data: unknown,
): void {
  if (events !== undefined) {
    events.emit('summary', { data: data ?? null }, runs[0]?.runId ?? null)
    return
  }
  if (data !== undefined) ctx.out.data(data)
  for (const run of runs) showRun(ctx, run)
}

/**
 * Prints the result of one run for people. After a success the last line on stdout is
 * `PATH version N`.
 */
function showRun(ctx: Context, run: RunView): void {
  const { out, times } = ctx
  if (run.success && run.runId !== null) {
    if (run.old !== null && run.old.version !== run.new?.version) {
      const until = run.grace === null ? undefined : Date.parse(run.grace.until)
      const fate =
        until !== undefined && until > ctx.clock.now()
          ? `stays valid until ${times.when(until)}`
          : run.old.state === 'live' || run.old.state === 'unknown'
            ? 'is due to end, and has not ended yet'
            : (run.old.state ?? '')
      out.note(`  old   version ${run.old.version} ${run.old.hint}  ${fate}`.trimEnd())
    }
    if (run.new !== null) out.note(`  new   version ${run.new.version} ${run.new.hint}`)
    if (run.nextRotationAt !== null)
      out.note(`  next  ${times.when(Date.parse(run.nextRotationAt))}`)
    if (run.grace !== null) out.note(`  undo while the old one lives: rotate rollback ${run.path}`)
  } else if (run.runId === null) {
    const given = run.targets.filter(({ status }) => status === 'updated').map(({ name }) => name)
    const held = run.targets.filter(({ status }) => status === 'unchanged').map(({ name }) => name)
    if (held.length > 0)
      out.note(`  ${held.join(', ')}: ${held.length === 1 ? 'holds' : 'hold'} it already`)
    if (given.length > 0) out.note(`${run.path}: no new version; delivered to ${given.join(', ')}`)
    else if (run.success) out.note(`${run.path}: already so, nothing to do`)
  }
  if (run.success) out.line(`${run.path} version ${run.version ?? 0}`)
}
