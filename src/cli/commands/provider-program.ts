/**
 * `provider test ./program`: says what will be made, asks, runs the suite and shows what
 * it found. This file is loaded only when a program is tested.
 */
import type { SuiteReport } from '../../app/adapters/suite/verdict.ts'
import { type ProgramTest, programTest } from '../../app/adapters/test-program.ts'
import { RotateError } from '../../core/errors.ts'
import { parsePath, visible } from '../../core/names.ts'
import type { Context } from '../context.ts'
import { shellWord } from '../render/shell-word.ts'
import { jsonOption } from './schedule.ts'
import { pickDefined } from '../../core/defined.ts'

const MARKS = { ok: 'ok  ', failed: 'fail', skipped: 'skip' } as const

/**
 * Tests a program. Throws `usage` for one that can't be started, `unhealthy` when a case
 * is red, and an error with the code of what stopped the suite before its end.
 */
export async function showProgramTest(
  ctx: Context,
  typed: string,
  options: { readonly config?: string; readonly path: string },
): Promise<void> {
  const { host, clock, signal, out } = ctx
  const program = visible(typed, 120)
  const given =
    options.config === undefined
      ? undefined
      : await jsonOption(ctx, options.config, '--config', true)
  const test = await programTest({
    program: typed,
    ...pickDefined({ config: given }),
    path: parsePath(options.path),
    clock,
    random: host.random,
    http: host.http,
    spawn: host.spawn,
    signal,
    began: (name) => {
      if (out.verbose > 0) out.note(`${name} …`)
    },
  })
  const config = JSON.stringify(test.config)
  out.note(`configuration of the provider exec: ${config}`)
  if (ctx.globals.dryRun) {
    out.data({ ok: true, checks: [], left: [], config: test.config, permissions: null })
    out.line(
      `${program} can be started; nothing was called, up to ${test.most} credentials would be made`,
    )
    return
  }
  await ctx.input.confirm(`${announced(test)} at the far side of ${program}?`, true)
  const report = await test.run()
  show(ctx, program, test, report)
}

/**
 * A hint for a script that only prints the value, which is the first thing that goes
 * wrong with most.
 */
function bareValue({ config }: ProgramTest, red: SuiteReport['checks']): string {
  const noJson =
    config['output'] === 'json' &&
    red.some(({ name, detail }) => name === 'create' && /not print one JSON object/.test(detail))
  return noJson ? `; if it prints the bare value: --config '{"output":"value"}'` : ''
}

function announced({ most, inPlace, revokes }: ProgramTest): string {
  if (inPlace) return `Replace the value that is in use, up to ${most} times,`
  return revokes
    ? `Make up to ${most} credentials, and end them again,`
    : `Make up to ${most} credentials, which nothing ends,`
}

function show(ctx: Context, program: string, test: ProgramTest, report: SuiteReport): void {
  const { out, signal } = ctx
  const widest = Math.max(...report.checks.map(({ name }) => name.length))
  const lines = report.checks.map(
    ({ status, name, detail }) => `${MARKS[status]} ${name.padEnd(widest)}  ${detail}`,
  )
  const left = report.left.map(
    ({ intent, keyId, why }) =>
      `left at the far side: ${keyId === null ? 'what' : `${keyId}, which`} was made under ` +
      `${intent}: ${why}`,
  )
  const now =
    left.length === 0
      ? 'everything that the suite made is ended'
      : `${left.length} may live at the far side, made under ` +
        `${report.left.map(({ intent }) => intent).join(', ')}`
  const details = {
    now: test.inPlace ? 'the last value that was made is in place at the far side' : now,
    ...report,
    config: test.config,
  }
  if (signal.aborted || !report.ok) for (const line of [...lines, ...left]) out.note(line)
  const byHand = left.length === 0 ? '' : 'end by hand at the far side what is left; then '
  if (signal.aborted) {
    const reason: unknown = signal.reason
    const code = reason instanceof RotateError ? reason.code : 'failed'
    throw new RotateError(code, `${program}: the suite was stopped before its end`, {
      hint: `${byHand}run it again`,
      details,
    })
  }
  const red = report.checks.filter(({ ok }) => !ok)
  if (red.length > 0)
    throw new RotateError(
      'unhealthy',
      `${program}: ${red.map(({ name, detail }) => `${name}: ${detail}`).join('; ')}`,
      {
        hint:
          `${byHand}mend ${program} and run it again; the protocol: rotate help ` +
          `programs${bareValue(test, red)}`,
        details,
      },
    )
  out.data({
    ok: report.ok,
    checks: report.checks,
    left: report.left,
    config: test.config,
    permissions: null,
  })
  for (const line of lines) out.line(line)
  for (const line of left) out.warn(line)
  out.note(
    'use it: rotate schedule set PATH --provider exec --interval 30 --config ' +
      `${shellWord(JSON.stringify(test.config))}`,
  )
}
