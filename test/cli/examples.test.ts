/**
 * Every shell line that help shows is run, in a home where only what it names has been
 * made. A part that stands for something of the reader's own (`…`, DATE, NAME, an
 * address) is filled in here, and a line that nobody can fill in fails.
 */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { describeAdapter } from '../../src/app/adapters/describe.ts'
import { listAdapters } from '../../src/app/adapters/open.ts'
import type { Host } from '../../src/cli/host.ts'
import { buildProgram } from '../../src/cli/program.ts'
import { topics } from '../../src/cli/topics.ts'
import { DAY } from '../../src/core/duration.ts'
import { configOf, option, World } from './rotation-world.ts'
import { inShell, pathOf, shellLines, uncommented, uncron } from './shell-lines.ts'
import { hasTerminal, onTerminal } from './terminal.ts'

const AWS = 'production/aws/DEPLOY_KEY'
const GEMINI = 'production/gemini/GEMINI_API_KEY'
const TOKEN = 'production/shop/API_TOKEN'
const LOGIN = 'production/db/LOGIN'
const VALUE = 'AIza-first-value-0123456789'
const BY_HAND = 'AIza-made-by-hand-0123456789'
const WORKER = fileURLToPath(new URL('../fakes/issuer-worker.ts', import.meta.url))
const SIGNING = 'whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz'
const SLACK = 'https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX'

interface Example {
  /** The command whose help shows the line, or `help TOPIC`. */
  readonly of: string
  readonly line: string
}

function examplesOf(command: Command, words: readonly string[]): readonly Example[] {
  const text = /\n\nExample[^\n]*:\n([^]*)$/.exec(command.description())?.[1] ?? ''
  const own = shellLines(text).map((line) => ({ of: words.join(' '), line }))
  return [
    ...own,
    ...command.commands.flatMap((child) => examplesOf(child, [...words, child.name()])),
  ]
}

const parser = buildProgram(
  { env: {} } as Host,
  () => () => Promise.resolve(),
  () => undefined,
)
// The drill is run by drill.test.ts, with a backup, a recovery key and nothing else.
const drill = topics.get('recovery')?.().split('\nDrill, ')[1] ?? ''
const examples: readonly Example[] = [
  ...examplesOf(parser, []),
  ...[...topics].flatMap(([topic, text]) =>
    shellLines(text().replace(drill, '')).map((line) => ({ of: `help ${topic}`, line })),
  ),
]

let world: World
/** An application that answers every request with success. */
const health = { url: '' }
const server = createServer((request, response) => request.resume().on('end', () => response.end()))
beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  health.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(() => server.close())

beforeEach(async () => {
  world = await new World().init()
})
afterEach(() => world.close())

const put = (name: string, text: string): void => writeFileSync(world.box.path(name), text)
const runIdOf = async (): Promise<string> =>
  (await world.data<{ history: readonly { runId: string }[] }>(['history'])).history[0]?.runId ?? ''

/** The id of the key that is current. */
async function aws(): Promise<string> {
  const { first, config } = await world.aws()
  put('aws.json', JSON.stringify(config))
  await world.ok(
    [
      'set',
      AWS,
      '--type',
      'aws_access_key',
      '--field',
      `accessKeyId=${first.id}`,
      '--field',
      'secretAccessKey=@-',
    ],
    {
      input: first.secret,
    },
  )
  const target = option('--target', { type: 'env-file', path: world.box.path('app/aws.env') })
  await world.ok([
    'schedule',
    'set',
    AWS,
    '--provider',
    'aws',
    '--interval',
    '90',
    ...option('--config', config),
    ...target,
  ])
  return first.id
}

async function rotated(): Promise<string> {
  await world.ok(['rotate', AWS])
  return runIdOf()
}

async function gemini(): Promise<void> {
  const fake = await world.connected(GEMINI, VALUE)
  fake.live.push(BY_HAND)
  world.script('make-key.sh', `echo ${BY_HAND}`)
}

/**
 * A run that waits for a person: its only target takes no message, not even the undo's.
 */
async function stuck(): Promise<string> {
  const fake = await world.hook({ overlap: true, live: [VALUE] })
  const target = { type: 'exec', run: [world.script('deliver', 'exit 1')] }
  await world.ok(['set', LOGIN], { input: VALUE })
  await world.ok([
    'schedule',
    'set',
    LOGIN,
    '--provider',
    'custom',
    '--interval',
    '30',
    '--config',
    configOf(fake),
    ...option('--target', target),
  ])
  expect((await world.run(['rotate', LOGIN])).code, 'the run waits for a person').toBe(21)
  return runIdOf()
}

/** A program that keeps to the protocol of `exec`, with a far side of its own. */
function issuer(output: 'json' | 'value'): void {
  for (const name of ['issue-key', 'try-key', 'program'])
    world.script(name, `exec '${process.execPath}' '${WORKER}' '${world.box.home}' '${output}' ''`)
}

/** Makes a run whose create call got no answer, and returns its id. */
async function unknown(): Promise<string> {
  const fake = await world.hook({ live: [VALUE] })
  await world.ok(['set', LOGIN], { input: VALUE })
  await world.ok([
    'schedule',
    'set',
    LOGIN,
    '--provider',
    'custom',
    '--interval',
    '30',
    '--config',
    configOf(fake),
  ])
  fake.inject({ kind: 'cut', action: 'rotate' })
  expect((await world.run(['rotate', LOGIN])).code, 'the run waits for a person').toBe(21)
  return runIdOf()
}

/** Stores a login that has an env file as its target. */
async function delivered(): Promise<void> {
  await world.ok(['set', LOGIN], { input: VALUE })
  const target = option('--target', { type: 'env-file', path: world.box.path('app/.env') })
  await world.ok([
    'schedule',
    'set',
    LOGIN,
    '--provider',
    'generated',
    '--interval',
    '30',
    ...target,
  ])
}

const intoEtc = (): void => {
  for (const directory of ['etc', 'var']) mkdirSync(world.box.path(directory), { recursive: true })
}

function usb(): void {
  for (const directory of ['usb', 'backups'])
    mkdirSync(world.box.path(directory), { recursive: true })
}

async function notifier(): Promise<void> {
  await world.ok([
    'notify',
    'set',
    'ops',
    '--config',
    JSON.stringify({ type: 'webhook', url: `${health.url}/hook`, secret: SIGNING }),
  ])
}

interface Scene {
  /** Makes what must be there before; may return what stands for the `…` of the line. */
  readonly before?: () => Promise<string | void> | string | void
  /** Puts in what stands for something of the reader's own. */
  readonly fill?: (line: string, found: string) => string
  readonly code?: number
  readonly input?: string
  /** Answers that are typed at the questions of the line. */
  readonly answers?: readonly (readonly [string, string])[]
}

/** Puts a place of this test for one that stands for the reader's own. */
const here = (line: string): string =>
  line
    .replaceAll(/\/srv\/\w+/g, world.box.path('app'))
    .replaceAll('/mnt/usb', world.box.path('usb'))
    .replaceAll('/mnt/backups', world.box.path('backups'))
    .replaceAll('/etc/rotate/', world.box.path('etc/'))
    .replaceAll('/var/lib/rotate/', world.box.path('var/'))
    .replaceAll('https://app.example.com/health', health.url)

const runId = (line: string, run: string): string => line.replace(/run_\w+…/, run)
/** Answers what the line would ask at a terminal. */
const yes = (line: string): string => `${line} --yes`
const fresh = (vault: string): Scene => ({
  fill: (line) => `unset ROTATE_KEY_FILE; export ROTATE_VAULT=${vault}; ${line}`,
})
const twice = (typed: string): NonNullable<Scene['answers']> => [
  ['assphrase', `${typed}\r`],
  ['again', `${typed}\r`],
]

/**
 * What a line needs beyond the secrets that it names, by the line as it stands in help.
 */
const AWS_FIELDS = '--field accessKeyId=AKIA… --field secretAccessKey=@-'
const BARE_VALUE = '{"output":"value","verify":["./try-key"],"revoke":null}'

const scenes: Readonly<Record<string, Scene>> = {
  'rotate deliver production/db/LOGIN': { before: delivered },
  'rotate init': { ...fresh('~/first.db'), answers: twice('correct horse battery') },
  'rotate init --key-file ~/.config/rotate/key': fresh('~/second.db'),
  'rotate init --key-file /etc/rotate/vault.key --vault /var/lib/rotate/vault.db': {
    before: intoEtc,
  },
  'printf %s "$KEY" | rotate set production/gemini/GEMINI_API_KEY --type api_key': {
    fill: (line) => `KEY=${VALUE}; ${line}`,
  },
  [`rotate set production/aws/DEPLOY --type aws_access_key ${AWS_FIELDS}`]: {
    fill: (line) => line.replace('AKIA…', 'AKIAIOSFODNN7EXAMPLE'),
    input: 'a-secret-access-key-0123456789',
  },
  'rotate import .env --into production/app': { before: () => put('.env', 'A_KEY=1\nB_KEY=2\n') },
  'rotate import - --format json < secrets.json': {
    before: () => put('secrets.json', '{"production/app/C_KEY":"3"}'),
  },
  'rotate resume run_01KB… --keep old': { before: unknown, fill: runId },
  'rotate resume production/db/LOGIN --keep old --give-up exec': { before: stuck, fill: yes },
  'rotate abort run_01KB…': { before: unknown, fill: runId },
  'rotate abort production/db/LOGIN --give-up exec': { before: stuck, fill: yes },
  '*/15 * * * *  rotate run-due --key-file /etc/rotate/key': {
    before: () => {
      intoEtc()
      copyFileSync(world.box.keyFile, world.box.path('etc/key'))
    },
  },
  'rotate rollback production/aws/DEPLOY_KEY': { before: rotated },
  // AWS keeps two keys, so there is no third version to go back to.
  'rotate rollback production/aws/DEPLOY_KEY --to-version 3': {
    fill: (line) => line.replace('3', '2'),
  },
  'rotate revoke production/aws/DEPLOY_KEY': { before: rotated },
  'rotate adopt production/aws/DEPLOY_KEY --key-id AKIA…': {
    before: async () => (await world.ok(['get', AWS, '--field', 'accessKeyId'])).stdout.trim(),
    fill: (line, id) => line.replace('AKIA…', id),
  },
  'rotate schedule pause production/aws/DEPLOY_KEY --until DATE': {
    fill: (line) => line.replace('DATE', new Date(Date.now() + 20 * DAY).toISOString()),
  },
  'rotate schedule skip production/aws/DEPLOY_KEY --for 30d': {
    before: () =>
      world.ok(['schedule', 'set', AWS, '--provider', 'aws', '--interval', '90']).then(() => ''),
  },
  'rotate provider test ./issue-key --yes': { before: () => issuer('json') },
  'rotate provider test ./program': { before: () => issuer('json'), fill: yes },
  [`rotate provider test ./issue-key --yes \\\n      --config '${BARE_VALUE}'`]: {
    before: () => issuer('value'),
  },
  'rotate notify set ops --config @slack.json': {
    before: () => put('slack.json', JSON.stringify({ type: 'slack', url: SLACK })),
  },
  'rotate notify set owners --config @email.json': {
    before: () =>
      put(
        'email.json',
        JSON.stringify({
          type: 'email',
          smtp: { host: 'mail.example.com' },
          from: 'rotate@example.com',
          to: ['a@example.com'],
        }),
      ),
  },
  'rotate notify set hook --config @hook.json': {
    before: () =>
      put('hook.json', JSON.stringify({ type: 'webhook', url: health.url, secret: SIGNING })),
  },
  'rotate notify test ops': { before: notifier },
  'rotate history production/aws/DEPLOY_KEY': { before: rotated },
  'rotate history run_01KABX…': { before: runIdOf, fill: runId },
  'rotate audit verify --anchor checkpoint.txt': {
    before: async () => put('checkpoint.txt', (await world.ok(['audit', 'verify'])).stdout),
  },
  'rotate audit verify-export audit.jsonl --pubkey "$(cat rotate.pub)"': {
    before: async () => put('rotate.pub', (await world.ok(['audit', 'pubkey'])).stdout),
  },
  'rotate unlocker add --kind passphrase': { answers: twice('correct horse battery') },
  'rotate unlocker add --kind recipient --recipient rp1-…': {
    before: async () =>
      (
        await world.ok(['unlocker', 'keygen', '--key-file', world.box.path('colleague.key')])
      ).stdout.trim(),
    fill: (line, key) => line.replace('rp1-…', key),
  },
  'rotate unlocker remove unl_…': {
    before: async () => {
      const { unlockers } = await world.data<{
        unlockers: readonly { id: string; kind: string }[]
      }>(['unlocker', 'list'])
      return unlockers.find(({ kind }) => kind === 'passphrase')?.id ?? ''
    },
    fill: (line, id) => line.replace('unl_…', id),
  },
  'rotate vault backup /mnt/usb/vault-2026-11-21.db': { before: usb },
  'rotate vault backup /mnt/usb/vault.db': { before: usb },
  'rotate vault restore /mnt/usb/vault.db': {
    fill: (line) => `mv ~/.local/share/rotate/vault.db ~/old.db; ${line}`,
  },
  'rotate get NAME --unverified --reason "outage"': {
    before: () => world.ok(['set', 'a/b/C', '--generate']).then(() => ''),
    fill: (line) => line.replace('NAME', 'a/b/C'),
  },
  'rotate completion zsh > "${fpath[1]}/_rotate"': { fill: (line) => `fpath=(x ~); ${line}` },
  // Not every machine has this shell, so only the script that it would be given is looked
  // at.
  'rotate completion fish | source': {
    fill: (line) => line.replace('source', 'grep -q "complete -c rotate"'),
  },
}

/** The test of the package runs these lines as they stand. */
const elsewhere = new Set(['rotate demo', 'rotate demo --break check'])

/** Secrets that a line names, made before it is run. */
async function makeWhatIsNamed(lines: readonly string[]): Promise<void> {
  const all = lines.join('\n')
  if (all.includes(AWS)) await aws()
  if (all.includes(GEMINI)) await gemini()
  if (all.includes('./smoke-test.sh')) world.script('smoke-test.sh', 'test -n "$(cat)"')
  for (const path of ['production/aws/DEPLOY', 'infra/aws/DEPLOY'])
    if (new RegExp(`get ${path}(?!_)`).test(all))
      await world.ok(['set', path, '--type', 'aws_access_key', '--fields-from', '-'], {
        input:
          '{"accessKeyId":"AKIAIOSFODNN7EXAMPLE","secretAccessKey":"a-secret-access-key-0123456789"}',
      })
  if (all.includes(TOKEN)) await world.ok(['set', TOKEN, '--generate'])
}

async function runs({ line }: Example): Promise<void> {
  const typed = uncommented(line)
  const scene = scenes[typed] ?? {}
  const found = (await scene.before?.()) ?? ''
  const filled = here(uncron(scene.fill?.(typed, found) ?? typed))
  expect(filled, `something of the reader's own is left to fill in: ${line}`).not.toMatch(
    /…|\b(?:DATE|NAME)\b/,
  )
  if (scene.answers !== undefined) {
    if (!hasTerminal) return
    const seen = await onTerminal(world.box, ['-c', filled], {
      command: '/bin/bash',
      answers: scene.answers,
      env: { PATH: pathOf(world.box) },
    })
    expect(seen.code, `${line}\n${seen.seen}`).toBe(scene.code ?? 0)
    return
  }
  const env = { ROTATE_KEY_FILE: world.box.keyFile }
  const ran = await inShell(world.box, filled, {
    shell: '/bin/bash',
    env,
    ...(scene.input === undefined ? {} : { input: scene.input }),
  })
  expect(ran.code, `${line}\n${ran.stdout}${ran.stderr}`).toBe(scene.code ?? 0)
}

const groups = [
  ...new Set(examples.map(({ of }) => (of.startsWith('help ') ? of : (of.split(' ')[0] ?? '')))),
]

describe('every line that help shows', () => {
  test('is found', () => {
    expect(examples.length).toBeGreaterThan(80)
    const shown = new Set(examples.map(({ line }) => uncommented(line)))
    expect(
      Object.keys(scenes).filter((line) => !shown.has(line)),
      'scenes of lines that no help shows any more',
    ).toEqual([])
  })

  test.each(groups)(
    'of "%s" does what it says',
    async (group) => {
      const own = examples.filter(({ of }) => of === group || of.startsWith(`${group} `))
      mkdirSync(world.box.path('app'))
      await makeWhatIsNamed(own.map(({ line }) => line))
      for (const example of own) if (!elsewhere.has(uncommented(example.line))) await runs(example)
    },
    180_000,
  )
})

describe('the examples of adapters', () => {
  const adapters = (['provider', 'target'] as const).flatMap((kind) =>
    listAdapters(kind).map(({ id }) => ({ kind, id })),
  )

  test('every adapter has one', async () => {
    for (const { kind, id } of adapters) {
      const { example } = await describeAdapter(kind, id)
      expect(example, `${kind} ${id}`).toBeDefined()
    }
  })

  test('are accepted as they are shown', async () => {
    for (const name of ['issue-token', 'deliver', 'bin/bw', 'bin/op', 'bin/fly']) {
      pathOf(world.box)
      world.script(name, 'exit 1')
    }
    const secrets: Record<string, Record<string, string>> = {}
    const lines: string[] = []
    for (const { kind, id } of adapters) {
      for (const { path, fields } of (await describeAdapter(kind, id)).example?.refers ?? [])
        secrets[path] = Object.fromEntries(
          (fields.length === 0 ? ['value'] : fields).map((field) => [field, 'a-value-0123456789']),
        )
      const { stdout } = await world.ok([kind, 'show', id])
      const shown = shellLines(/\nExample:\n([^]*)$/.exec(stdout)?.[1] ?? '')
      expect(shown, `${kind} show ${id}`).toHaveLength(1)
      lines.push(...shown.map((line) => line.replace('/shop/', `/${kind}-${id}/`)))
    }
    for (const [path, fields] of Object.entries(secrets)) {
      const single = 'value' in fields
      await world.ok(['set', path, ...(single ? ['-'] : ['--fields-from', '-'])], {
        input: single ? (fields['value'] ?? '') : JSON.stringify(fields),
      })
    }
    const ran = await inShell(world.box, lines.join('\n'), {
      env: { ROTATE_KEY_FILE: world.box.keyFile },
    })
    expect(ran.code, ran.stdout + ran.stderr).toBe(0)
    expect(ran.stdout.trim().split('\n')).toHaveLength(adapters.length)
  }, 600_000)
})
