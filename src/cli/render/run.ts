/** How runs look to people: steps on stderr as they happen, the result on stdout. */
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

/** NDJSON on stdout for `--events`: `step`, `notice`, and at the end `summary`. */
export class Events {
  readonly #ctx: Context
  #seq = 0
  #runId: string | null = null

  constructor(ctx: Context) {
    this.#ctx = ctx
  }

  emit(
    type: 'step' | 'notice' | 'summary',
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
      events.emit(
        'step',
        {
          path: event.path,
          step: event.step,
          status: event.status,
          ms: event.ms === undefined ? null : Math.round(event.ms),
          detail: event.detail ?? null,
        },
        event.runId === '' ? null : event.runId,
      )
      return
    }
    if (event.status === 'started') {
      // A delivery without a run has no id.
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
    // Steps with nothing to do for this provider or target are in the journal, and no
    // news.
    const undone = event.step.startsWith('restore:')
    if (event.status === 'done' && event.detail !== undefined && !undone && ctx.out.verbose === 0)
      return
    const ok = event.status === 'done'
    ctx.out.note(
      '  ',
      ok ? { text: 'ok    ', style: 'green' } : { text: 'failed', style: 'red' },
      ` ${wordsOf(event.step)}${event.ms === undefined || event.ms < 100 ? '' : `  ${seconds(event.ms)}`}${event.detail === undefined ? '' : `: ${PUT_BACK[event.detail] ?? event.detail}`}`,
    )
  }
}

/** The result of one run, for people. The last line on stdout is `PATH version N`. */
export function showRun(ctx: Context, run: RunView): void {
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
