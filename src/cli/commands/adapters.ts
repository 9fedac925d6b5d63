/**
 * `provider …` and `target …`: which adapters there are, how they are configured, and
 * whether they work. `list` and `show` need no vault.
 */
import type { Command } from 'commander'
import type { AdapterExample } from '../../app/adapters/describe.ts'
import { parseName } from '../../app/base/lookup.ts'
import { RotateError, usage } from '../../core/errors.ts'
import { visible } from '../../core/names.ts'
import { untilAborted } from '../aborted.ts'
import type { Context } from '../context.ts'
import type { Register, Run } from '../command.ts'
import { shellWord } from '../render/shell-word.ts'

/**
 * The beginning of a program's path. No name of a secret begins so: `.` and `..` are no
 * segments of a name, and none is empty.
 */
const PROGRAM = /^(\/|\.{1,2}\/)/
const SUITE_PATH = 'test/provider/CREDENTIAL'

interface ProgramOptions {
  readonly config?: string
  readonly path?: string
}

export const provider: Register = (parent, run) => {
  const group = parent
    .command('provider')
    .helpGroup('Adapters:')
    .summary('who issues new values')
    .description('Who issues new values.')
  listAndShow(group, run, 'provider')
  group
    .command('test')
    .summary('could a rotation begin? or: does this program keep to the protocol?')
    .description(
      'With the path of a secret: asks the provider what a rotation asks before it begins, ' +
        'and whether it accepts the current value; prints the least rights that the configured ' +
        'credential needs. Changes nothing.\n\n' +
        'With the path of a program (./x, ../x, /x): runs the conformance suite against it, ' +
        'through the provider "exec". Needs no vault. It really makes credentials at the far ' +
        'side of the program, and ends them again; so it asks first, and --yes answers. ' +
        '--dry-run only looks whether it can be started.\n\n' +
        'By default one program answers all events in JSON: ' +
        '{"output":"json","create":[X],"settle":[X],"verify":[X],"revoke":[X]}. --config is ' +
        'laid over that; null takes an event away. With "output":"value" there is no ' +
        'settle.\n\n' +
        'Exit 25 if something is red.\n\n' +
        'Examples:\n  rotate provider test production/aws/DEPLOY_KEY\n  rotate provider test ' +
        './issue-key --yes\n' +
        '  rotate provider test ./issue-key --yes \\\n      --config ' +
        '\'{"output":"value","verify":["./try-key"],"revoke":null}\'',
    )
    .argument('<path>', 'which secret, or a program: ./x, ../x, /x')
    .option(
      '--config <json>',
      'of a program: configuration of the provider exec, laid over the default: JSON, @FILE, ' +
        'or - for stdin',
    )
    .option(
      '--path <path>',
      `of a program: what it is told as ROTATE_SECRET; default ${SUITE_PATH}`,
    )
    .action(
      run(
        async (ctx, path: string, options: ProgramOptions) => {
          if (PROGRAM.test(path)) {
            const { showProgramTest } = await import('./provider-program.ts')
            return showProgramTest(ctx, path, { path: SUITE_PATH, ...options })
          }
          const stray = (['config', 'path'] as const).find((name) => options[name] !== undefined)
          if (stray !== undefined)
            throw usage(
              `--${stray} is only for a program, and a program is written with its path: ` +
                `./${visible(path, 40)}`,
            )
          await Promise.race([showTest(ctx, parseName(path), 'provider'), untilAborted(ctx.signal)])
        },
        { graceful: true },
      ),
    )
  group
    .command('keys')
    .summary('what exists at the provider, and whose it is')
    .description(
      'Lists what exists at the provider. Foreign keys are reported and never ' +
        'touched.\n\nExample:\n  rotate provider keys production/aws/DEPLOY_KEY',
    )
    .argument('<path>', 'which secret')
    .action(
      run(async (ctx, path: string) => {
        const { providerKeys } = await import('../../app/rotation/revoke.ts')
        const keys = await providerKeys(await ctx.deps({ readonly: true }), parseName(path))
        ctx.out.data({ keys })
        await ctx.out.table(
          ['KEY', 'WHOSE', 'STATE', 'WHAT HAPPENS TO IT'],
          keys.map((key) => [key.id, key.owner, key.state, key.action]),
        )
      }),
    )
}

export const target: Register = (parent, run) => {
  const group = parent
    .command('target')
    .helpGroup('Adapters:')
    .summary('who gets the new value')
    .description('Who gets the new value.')
  listAndShow(group, run, 'target')
  group
    .command('test')
    .summary('could a rotation write to every target?')
    .description(
      'Probes every target of a secret as a rotation does before it begins; changes nothing. ' +
        'Exit 25 if one is red.\n\nExample:\n  rotate target test production/aws/DEPLOY_KEY',
    )
    .argument('<path>', 'which secret')
    .action(run(async (ctx, path: string) => showTest(ctx, parseName(path), 'target')))
}

async function showTest(ctx: Context, path: string, kind: 'provider' | 'target'): Promise<void> {
  const { testProvider, testTargets } = await import('../../app/adapters/test.ts')
  const deps = await ctx.deps({ readonly: true })
  const report = await (kind === 'provider' ? testProvider(deps, path) : testTargets(deps, path))
  const lines = report.checks.map(
    ({ ok, name, detail }) => `${ok ? 'ok  ' : 'fail'} ${name}  ${detail}`,
  )
  if (report.permissions !== null)
    lines.push('', 'the least rights that its configured credential needs:', report.permissions)
  const red = report.checks.filter(({ ok }) => !ok)
  if (red.length > 0) {
    // When this command fails it prints no data, so stdout stays empty.
    for (const line of lines) ctx.out.note(line)
    throw new RotateError(
      'unhealthy',
      `${path}: ${red.map(({ name, detail }) => `${name}: ${detail}`).join('; ')}`,
      {
        hint:
          `mend it with: rotate schedule set ${path} ` +
          `--${kind === 'provider' ? 'config' : 'target'} …`,
        details: {
          now: 'nothing was changed',
          checks: report.checks,
          permissions: report.permissions,
        },
      },
    )
  }
  ctx.out.data(kind === 'provider' ? report : { ok: report.ok, checks: report.checks })
  for (const line of lines) ctx.out.line(line)
}

/**
 * A line that can be pasted, what must be stored before it, and what the secret looks
 * like.
 */
function exampleLines(
  kind: 'provider' | 'target',
  id: string,
  { config, issues, refers }: AdapterExample,
): readonly string[] {
  const set = 'rotate schedule set production/shop/API_KEY'
  const line =
    kind === 'provider'
      ? `${set} --provider ${id} --interval 30 --config ${shellWord(JSON.stringify(config))}`
      : `${set} --provider generated --interval 30 --target ` +
        `${shellWord(JSON.stringify({ type: id, ...(config as object) }))}`
  const stored = refers.map(({ path, fields }) =>
    fields.length === 0 ? path : `${path} with ${fields.join(' and ')}`,
  )
  return [
    '',
    'Example:',
    `  ${line}`,
    ...(stored.length === 0
      ? []
      : [`  It refers to what you have stored before: ${stored.join('; ')}.`]),
    ...(kind === 'target'
      ? []
      : [
          issues.length === 0
            ? '  The secret is one value.'
            : `  The secret has the fields ${issues.join(', ')}.`,
        ]),
  ]
}

function listAndShow(group: Command, run: Run, kind: 'provider' | 'target'): void {
  group
    .command('list')
    .alias('ls')
    .summary(`all ${kind}s`)
    .description(`All ${kind}s. Needs no vault.`)
    .action(
      run(async (ctx) => {
        const { listAdapters } = await import('../../app/adapters/open.ts')
        const rows = listAdapters(kind)
        ctx.out.data({ [`${kind}s`]: rows })
        await ctx.out.table(
          ['ID', 'WHAT'],
          rows.map((row) => [row.id, row.title]),
        )
      }),
    )
  group
    .command('show')
    .summary(`how a ${kind} is configured`)
    .description(
      `How a ${kind} is configured: every key with its meaning, what to know about it, and ` +
        `an example; with --json the JSON Schema. Needs no vault.\n\nExample:\n  rotate ` +
        `${kind} show ${kind === 'provider' ? 'aws' : 'env-file'}`,
    )
    .argument('<id>', `which ${kind}`)
    .action(
      run(async (ctx, id: string) => {
        const { describeAdapter } = await import('../../app/adapters/describe.ts')
        const description = await describeAdapter(kind, id)
        const { id: name, title, schema, facts, notes, example } = description
        ctx.out.data({ id: name, title, schema, ...facts, notes, example: example ?? null })
        ctx.out.line(`${description.id}: ${description.title}`)
        for (const line of description.lines) ctx.out.line(line)
        await ctx.out.table(
          ['KEY', 'NEEDED', 'MEANING'],
          description.fields.map((field) => [
            field.name,
            field.required ? 'yes' : '',
            field.meaning,
          ]),
        )
        for (const line of notes.length === 0
          ? []
          : [
              '',
              'Good to know:',
              ...notes.map((note) => (note.startsWith(' ') ? `  ${note}` : `  - ${note}`)),
            ])
          ctx.out.line(line)
        for (const line of example === undefined ? [] : exampleLines(kind, name, example))
          ctx.out.line(line)
      }),
    )
}
