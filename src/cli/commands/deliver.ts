/**
 * `deliver` brings the current value to targets that do not hold it, and `drift` shows
 * which these are.
 */
import type { DriftRow } from '../../app/delivery/drift.ts'
import { parseName } from '../../app/base/lookup.ts'
import type { RunView } from '../../app/runs/run-view.ts'
import { RotateError, usage } from '../../core/errors.ts'
import { isGlob } from '../../core/names.ts'
import type { Context } from '../context.ts'
import type { Register } from '../command.ts'
import { finish } from '../finish.ts'
import { pickDefined } from '../../core/defined.ts'

export const deliver: Register = (parent, run) => {
  parent
    .command('deliver')
    .helpGroup('Rotation:')
    .summary('put the current value where it is not, without a new credential')
    .description(
      'Delivers the current value to the targets of a secret: after rotate set, which ' +
        'delivers nothing, or where a target has come to hold something else. ' +
        'Nothing is created, promoted or ended. A target that can be read and holds the value ' +
        'is left alone; one that can not be read is written. ' +
        'Refused while a run is open (11), and for a value that the provider refuses (20).\n\n' +
        'Examples:\n  rotate deliver production/db/LOGIN\n  rotate deliver ' +
        'production/db/LOGIN --target env-file\n' +
        "  rotate deliver 'production/**' --yes",
    )
    .argument(
      '<path...>',
      "which secrets; a glob such as 'production/**' selects those with targets",
    )
    .option('--target <name...>', 'only these targets (rotate where PATH names them)')
    .option('--events', 'steps as NDJSON on stdout')
    .action(
      run(
        async (ctx, words: readonly string[], options: { target?: string[]; events?: true }) => {
          const use = await import('../../app/delivery/deliver.ts')
          const names = words.map((word) => (isGlob(word) ? word : parseName(word)))
          const deps = await ctx.deps(ctx.globals.dryRun ? { readonly: true } : {})
          const secrets = await use.findNamed(deps, names)
          const paths = secrets.map(({ path }) => path)
          if (options.target !== undefined && secrets.length > 1)
            throw usage('--target names targets of one secret; name one secret')
          if (ctx.globals.dryRun) return wouldDeliver(ctx, paths, options.target)
          if (names.some(isGlob)) {
            for (const path of paths) ctx.out.note(`  ${path}`)
            await ctx.input.confirm(`Deliver the current value of these ${paths.length}?`, true)
          }
          const { Events, progressPrinter } = await import('../render/run.ts')
          const events = options.events === true ? new Events(ctx) : undefined
          const outcome = await use.deliver(
            deps,
            { secrets, ...pickDefined({ targets: options.target }) },
            progressPrinter(ctx, events),
          )
          await report(ctx, outcome, events, secrets.length)
        },
        { graceful: true },
      ),
    )
}

/** Prints what was done, whatever it came to, and ends the command. */
async function report(
  ctx: Context,
  outcome: { readonly runs: readonly RunView[]; readonly failure: RotateError | undefined },
  events: import('../render/run.ts').Events | undefined,
  count: number,
): Promise<void> {
  const { showRuns } = await import('../render/run.ts')
  const { runs } = outcome
  const data = count === 1 && runs.length > 0 ? runs[0] : { runs }
  // A delivery that failed before it touched any target has nothing to report.
  showRuns(ctx, events, runs, runs.length === 0 && events === undefined ? undefined : data)
  await finish(ctx, outcome.failure)
}

async function wouldDeliver(
  ctx: Context,
  paths: readonly string[],
  targets: readonly string[] | undefined,
): Promise<void> {
  const { drift: look } = await import('../../app/delivery/drift.ts')
  const rows = (await look(await ctx.deps({ readonly: true }), paths)).filter(
    ({ place }) =>
      place.startsWith('target:') &&
      (targets === undefined || targets.includes(place.slice('target:'.length))),
  )
  ctx.out.data({ drift: rows.map(dataOf) })
  await printTable(ctx, rows)
  // A target that can't be read is written too, so only those that hold the value are
  // left out.
  const written = rows.filter(({ state }) => state !== 'current')
  ctx.out.note(
    `dry run: nothing was delivered; ${written.length} of ${rows.length} targets would be written`,
  )
}

export const drift: Register = (parent, run) => {
  parent
    .command('drift')
    .helpGroup('Looking back:')
    .summary('vault, provider and targets side by side')
    .description(
      'Asks the provider and every target of each scheduled secret, and shows what each holds ' +
        'beside what the vault holds; values are never shown. ' +
        '--fix delivers the current value wherever a target differs, without a new ' +
        'credential; a provider that refuses the value needs a rotation instead.\n\n' +
        "Examples:\n  rotate drift\n  rotate drift 'production/**' --exit-code\n  rotate " +
        'drift production/db/LOGIN --fix',
    )
    .argument('[sel...]', "names, prefixes or globs such as 'production/**'; default all")
    .option(
      '--fix',
      'deliver the current value where a target differs (needs --yes without a terminal)',
    )
    .option('--exit-code', 'end with 3 when something differs')
    .action(
      run(
        async (ctx, selectors: readonly string[], options: { fix?: true; exitCode?: true }) => {
          const use = await import('../../app/delivery/drift.ts')
          const fix = options.fix === true && !ctx.globals.dryRun
          const deps = await ctx.deps(fix ? {} : { readonly: true })
          let rows = await use.drift(deps, selectors)
          const wrong = rows.filter(({ differs }) => differs)
          const toFix = wrong.filter(({ place }) => place.startsWith('target:'))
          if (fix && toFix.length > 0) {
            for (const { path, place, state } of toFix)
              ctx.out.note(`  ${path}  ${place}  ${state}`)
            await ctx.input.confirm(
              `Deliver the current value to these ${toFix.length} targets?`,
              true,
            )
            const { progressPrinter } = await import('../render/run.ts')
            const outcome = await use.fixDrift(deps, rows, progressPrinter(ctx, undefined))
            rows = await use.drift(deps, selectors)
            await showDrift(ctx, rows)
            await finish(ctx, outcome.failure)
          } else await showDrift(ctx, rows)
          const left = rows.filter(({ differs }) => differs)
          if (options.fix === true && ctx.globals.dryRun)
            ctx.out.note(`dry run: nothing was delivered; ${toFix.length} targets would be written`)
          else if (left.length > 0) ctx.out.note(adviceOf(left))
          if (options.exitCode === true && left.length > 0)
            throw new RotateError(
              'differences',
              `${left.length} of ${rows.length} places differ, or can not be told`,
              {
                hint: adviceOf(left),
                details: { differs: left.map(({ path, place }) => `${path} ${place}`) },
              },
            )
        },
        { graceful: true },
      ),
    )
}

function adviceOf(left: readonly DriftRow[]): string {
  const target = left.find(({ place }) => place.startsWith('target:'))
  return target === undefined
    ? `look closer: rotate check ${left[0]?.path ?? ''}`
    : `put the current value there: rotate deliver ${target.path}`
}

function dataOf({ path, place, holds, state, detail }: DriftRow) {
  return { path, place, holds, state, detail }
}

async function showDrift(ctx: Context, rows: readonly DriftRow[]): Promise<void> {
  ctx.out.data({ drift: rows.map(dataOf) })
  await printTable(ctx, rows)
}

async function printTable(ctx: Context, rows: readonly DriftRow[]): Promise<void> {
  if (rows.length === 0) ctx.out.note('nothing is scheduled here')
  else
    await ctx.out.table(
      ['SECRET', 'PLACE', 'HOLDS', 'STATE', ''],
      rows.map(({ path, place, holds, state, detail }) => [
        path,
        place,
        holds === null ? '-' : `version ${holds}`,
        state,
        detail,
      ]),
    )
}
