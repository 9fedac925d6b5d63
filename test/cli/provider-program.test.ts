/**
 * `provider test ./program` through the built program: one that keeps to the protocol,
 * and many that each break one promise.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { errorOf, program, type Result, Sandbox } from './program.ts'

const WORKER = fileURLToPath(new URL('../fakes/issuer-worker.ts', import.meta.url))

interface Case {
  readonly name: string
  readonly status: 'ok' | 'failed' | 'skipped'
  readonly ok: boolean
  readonly ms: number
  readonly detail: string
}
interface Report {
  readonly ok: boolean
  readonly checks: readonly Case[]
  readonly left: readonly {
    readonly intent: string
    readonly keyId: string | null
    readonly why: string
  }[]
  readonly config: Readonly<Record<string, unknown>>
}

const boxes: Sandbox[] = []
afterAll(() => {
  for (const box of boxes) box.dispose()
})

function newBox(): Sandbox {
  const box = new Sandbox()
  boxes.push(box)
  return box
}

/**
 * Makes a directory with the program `./issuer` and the service behind it. No vault is
 * made.
 */
function issuer(output: 'json' | 'value' = 'json', fault = '') {
  const box = newBox()
  script(
    box,
    'issuer',
    `exec '${process.execPath}' '${WORKER}' '${box.home}' '${output}' '${fault}'`,
  )
  return { box, live: () => entries(box.path('live')), made: () => entries(box.path('made')) }
}

function script(box: Sandbox, name: string, body: string): void {
  writeFileSync(box.path(name), `#!/bin/sh\n${body}\n`)
  chmodSync(box.path(name), 0o700)
}

const entries = (dir: string): readonly string[] =>
  existsSync(dir) ? readdirSync(dir).filter((name) => !name.endsWith('.new')) : []
const valuesOf = (box: Sandbox): readonly string[] =>
  entries(box.path('made')).map(
    (name) => (JSON.parse(readFileSync(box.path('made', name), 'utf8')) as { value: string }).value,
  )
const names = (checks: readonly Case[], status: Case['status']): readonly string[] =>
  checks.filter((one) => one.status === status && !tooQuick(one)).map(({ name }) => name)
/**
 * A create is stopped after a share of the time that one took before; on a machine that
 * is slow only now and then it may answer first.
 */
const tooQuick = ({ name, detail }: Case): boolean =>
  name === 'stopped' && detail === 'it answered before it could be stopped'
const dataOf = (result: Result): Report => (JSON.parse(result.stdout) as { data: Report }).data

/** Nothing that was issued may show on either stream. */
function expectSilent(box: Sandbox): void {
  for (const value of valuesOf(box))
    for (const { stdout, stderr } of box.results)
      expect(`${stdout}\n${stderr}`.includes(value), 'a value was printed').toBe(false)
}

describe('a program that keeps to the protocol', () => {
  test('JSON: every case that applies is green, and nothing is left', async () => {
    const { box, live } = issuer()
    const result = await box.run(['provider', 'test', './issuer', '--yes', '--json'])
    expect(result.code, result.stderr).toBe(0)
    const { ok, checks, left, config } = dataOf(result)
    expect({ ok, left, red: names(checks, 'failed'), skipped: names(checks, 'skipped') }).toEqual({
      ok: true,
      left: [],
      red: [],
      skipped: ['list', 'suspend'],
    })
    const path = box.path('issuer')
    expect(config).toEqual({
      output: 'json',
      create: [path],
      settle: [path],
      verify: [path],
      revoke: [path],
    })
    expect(checks.find(({ name }) => name === 'stopped')?.detail).toMatch(
      /^(settle knows: \d had made something, \d had not|it answered before it could be stopped)$/,
    )
    expect(live()).toEqual([])
    expectSilent(box)
  })

  test('for people: a line per case, what will be called before, how to use it after', async () => {
    const { box } = issuer()
    const result = await box.run(['provider', 'test', './issuer', '--yes'])
    expect(result.code, result.stderr).toBe(0)
    expect(result.stdout).toMatch(/^ok {3}preflight +every program can be started$/m)
    expect(result.stdout).toMatch(/^skip list +it can not list$/m)
    expect(result.stderr).toMatch(/^configuration of the provider exec: \{"output":"json"/m)
    expect(result.stderr).toMatch(/^use it: rotate schedule set PATH --provider exec/m)
    expect(existsSync(box.vault)).toBe(false)
  })

  test('bare values: the cases that need no more', async () => {
    const { box, live } = issuer('value')
    const result = await box.run([
      'provider',
      'test',
      './issuer',
      '--yes',
      '--json',
      '--config',
      '{"output":"value"}',
    ])
    expect(result.code, result.stderr).toBe(0)
    const { checks, left } = dataOf(result)
    expect(names(checks, 'skipped')).toEqual([
      'list',
      'settle: answered',
      'settle: never made',
      'create: same attempt',
      'suspend',
      'broken question',
      'stopped',
    ])
    expect(left).toEqual([])
    expect(live()).toEqual([])
  })

  test('only a value, and nobody to ask: what stays is named, with the mark under which it was made', async () => {
    const { box, live, made } = issuer('value')
    const config = '{"output":"value","verify":null,"revoke":null}'
    const result = await box.run(['provider', 'test', './issuer', '--yes', '--config', config])
    expect(result.code, result.stderr).toBe(0)
    expect(live()).toHaveLength(2)
    expect(
      [
        ...result.stderr.matchAll(/^warning: left at the far side: what was made under (\S+): /gm),
      ].map(([, mark]) => mark),
    ).toEqual(made().toSorted())
    expectSilent(box)
  })

  test('a value that is replaced in place', async () => {
    const { box } = issuer('json', 'overlap-lie')
    const result = await box.run([
      'provider',
      'test',
      './issuer',
      '--yes',
      '--json',
      '--config',
      '{"overlap":false}',
    ])
    expect(result.code, result.stderr).toBe(0)
    expect(dataOf(result).checks.find(({ name }) => name === 'overlap')?.detail).toBe(
      'the old value died with the create',
    )
  })

  test('it is told the path that --path names', async () => {
    const { box } = issuer()
    script(
      box,
      'told',
      `echo "$ROTATE_SECRET" >> '${box.path('told.txt')}'; exec '${box.path('issuer')}'`,
    )
    await box.run(['provider', 'test', './told', '--yes', '--path', 'production/app/API_KEY'])
    expect(new Set(readFileSync(box.path('told.txt'), 'utf8').trim().split('\n'))).toEqual(
      new Set(['production/app/API_KEY']),
    )
  })
})

/**
 * Longer than any working program takes. The cases that hang wait that long while all
 * others run, so that the test is no longer for it.
 */
const LONG = '15s'

/**
 * Fault → the case that must be red, how many credentials live at the end, and
 * configuration.
 */
const wrong: readonly (readonly [string, string, number, string?])[] = [
  ['hangs-verify', 'verify: new value', 0, `{"timeout":"${LONG}"}`],
  ['hangs', 'create', 0, `{"timeout":"${LONG}"}`],
  ['verify-yes', 'verify: wrong value', 0],
  ['verify-no', 'verify: new value', 0],
  ['wrong-code', 'verify: wrong value', 0],
  ['same-value', 'create: another attempt', 0],
  ['same-handle', 'create: another attempt', 0],
  ['overlap-lie', 'overlap', 0],
  ['rubbish', 'create', 0],
  ['wrong-field', 'create', 1],
  ['settle-none', 'settle: answered', 0],
  ['settle-invents', 'settle: never made', 0],
  ['ignores-tag', 'create: same attempt', 0],
  ['revoke-nothing', 'revoke', 2],
  ['revoke-once', 'revoke: again', 0],
  ['revoke-all', 'revoke: the other one', 0],
  ['unknown-creates', 'unknown event', 0],
  ['unknown-makes', 'unknown event', 0],
  ['unknown-zero', 'unknown event', 0],
  ['yes-to-half', 'broken question', 0],
  ['leak-create', 'no value in sight', 0],
  ['leak-verify', 'no value in sight', 0],
  ['handle-is-value', 'no value in sight', 0],
]

describe.concurrent('a program that breaks one promise turns one case red', () => {
  test('stopped by --timeout: 1, and what was made is ended', async () => {
    const { box, live } = issuer('json', 'hangs-verify')
    const result = await box.fails(1, [
      'provider',
      'test',
      './issuer',
      '--yes',
      '--timeout',
      LONG,
      '--config',
      '{"timeout":"1m"}',
    ])
    expect(result.stderr).toContain('the suite was stopped before its end')
    expect(live()).toEqual([])
    expect(entries(join(box.home, 'made'))).toHaveLength(1)
  })

  test.for(wrong)('%s: %s', async ([fault, red, alive, config]) => {
    const { box, live } = issuer('json', fault)
    const result = await box.run([
      'provider',
      'test',
      './issuer',
      '--yes',
      '--json',
      ...(config === undefined ? [] : ['--config', config]),
    ])
    expect(result.code, result.stderr).toBe(25)
    expect(result.stdout).toBe('')
    const { code, details, hint } = errorOf(result)
    const { checks, left } = details as unknown as Report
    expect({ code, red: names(checks, 'failed') }, result.stderr).toEqual({
      code: 'unhealthy',
      red: [red],
    })
    expect(live()).toHaveLength(alive)
    // What is alive is named with the mark of its attempt, and nothing else is named.
    expect(
      left.map(({ intent }) => intent).every((mark) => existsSync(box.path('made', mark))),
    ).toBe(true)
    expect(left).toHaveLength(alive)
    expect(hint).toMatch(alive === 0 ? /^mend / : /^end by hand/)
    expectSilent(box)
  })

  test('lock: stopped', async () => {
    // On a machine that is slow only now and then no create may be hit while it holds its
    // lock; then nothing can be shown, and it is tried with a fresh one.
    let result: Result | undefined
    for (let attempt = 0; attempt < 4 && result?.code !== 25; attempt++) {
      const { box } = issuer('json', 'lock')
      result = await box.run(['provider', 'test', './issuer', '--yes', '--json'])
    }
    if (result === undefined) throw new Error('it never ran')
    expect(result.code, result.stderr).toBe(25)
    const { checks, left } = errorOf(result).details as unknown as Report
    expect(names(checks, 'failed'), result.stderr).toEqual(['stopped'])
    expect(checks.find(({ name }) => name === 'stopped')?.detail).toMatch(
      /settle can not be asked .* another create is running/,
    )
    expect(left).toEqual([
      expect.objectContaining({
        keyId: null,
        why: expect.stringContaining('create may have made something') as string,
      }),
    ])
  })
})

describe('red, for people', () => {
  test('the lines and what is left on stderr, nothing on stdout', async () => {
    const { box } = issuer('json', 'wrong-field')
    const result = await box.fails(25, ['provider', 'test', './issuer', '--yes'])
    expect(result.stderr).toMatch(/^fail create +issuer ended well, but "value" is missing/m)
    expect(result.stderr).toMatch(/^skip revoke +nothing was made$/m)
    expect(result.stderr).toMatch(
      /^left at the far side: what was made under rotate-conformed-\w{26}-1: create may have/m,
    )
    expect(result.stderr).toMatch(
      /^ {2}now: 1 may live at the far side, made under rotate-conformed-/m,
    )
    expect(result.stderr).toMatch(
      /^ {2}next: end by hand at the far side what is left; then mend \.\/issuer and run it again/m,
    )
  })

  test('a script that only prints is told how to say so', async () => {
    const { box } = issuer('value')
    const result = await box.fails(25, ['provider', 'test', './issuer', '--yes'])
    expect(result.stderr).toContain(`if it prints the bare value: --config '{"output":"value"}'`)
    expectSilent(box)
  })
})

describe('before anything is called', () => {
  test('without a terminal it wants --yes', async () => {
    const { box, made } = issuer()
    const result = await box.fails(2, ['provider', 'test', './issuer'])
    expect(result.stderr).toMatch(
      /^rotate: Make up to 5 credentials, and end them again, at the far side of \.\/issuer: /m,
    )
    expect(result.stderr).toContain('next: add --yes')
    await box
      .fails(2, ['provider', 'test', './issuer', '--config', '{"revoke":null}'])
      .then(({ stderr }) => {
        expect(stderr).toContain('which nothing ends')
      })
    expect(made()).toEqual([])
  })

  test('--dry-run only looks whether it can be started', async () => {
    const { box, made } = issuer()
    const result = await box.run(['provider', 'test', box.path('issuer'), '--dry-run'])
    expect(result).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('can be started; nothing was called') as string,
    })
    expect(made()).toEqual([])
  })

  test.each<[string, (box: Sandbox) => readonly string[], RegExp]>([
    [
      'does not exist',
      () => ['./none'],
      /the program \.\/none does not exist or is not executable/,
    ],
    [
      'is not executable',
      (box) => (chmodSync(box.path('issuer'), 0o600), ['./issuer']),
      /not executable/,
    ],
    ['is a directory', () => ['./'], /does not exist or is not executable/],
    [
      'may be replaced by others',
      (box) => (chmodSync(box.path('issuer'), 0o722), ['./issuer']),
      /writable by group or others/,
    ],
    ['an unknown key', () => ['./issuer', '--config', '{"surprise":1}'], /unknown key "surprise"/],
    ['no JSON', () => ['./issuer', '--config', '{'], /not valid JSON/],
    [
      'settle without JSON',
      () => ['./issuer', '--config', '{"output":"value","settle":["./issuer"]}'],
      /needs "output": "json"/,
    ],
    ['no create', () => ['./issuer', '--config', '{"create":null}'], /field "create"/],
    ['a path that is none', () => ['./issuer', '--path', '../x'], /contains "\.\."/],
    [
      '--config for a secret',
      () => ['app/prod/KEY', '--config', '{}'],
      /--config is only for a program/,
    ],
    [
      '--path for a secret',
      () => ['app/prod/KEY', '--path', 'a/b'],
      /--path is only for a program/,
    ],
  ])('2: %s', async (_what, args, message) => {
    const { box, made } = issuer()
    expect((await box.fails(2, ['provider', 'test', ...args(box), '--yes'])).stderr).toMatch(
      message,
    )
    expect(made()).toEqual([])
  })

  test('a configuration from a file and from stdin', async () => {
    const { box } = issuer()
    writeFileSync(box.path('c.json'), '{"surprise":1}')
    for (const [source, options] of [
      ['@c.json', {}],
      ['-', { input: '{"surprise":1}' }],
    ] as const)
      expect(
        (await box.fails(2, ['provider', 'test', './issuer', '--config', source], options)).stderr,
      ).toContain('unknown key "surprise"')
  })

  test('completion offers its options', async () => {
    const { box } = issuer()
    const { stdout } = await box.run(['completion', 'bash'])
    expect(/"provider test"\) COMPREPLY=.*/.exec(stdout)?.[0]).toMatch(/--config .*--path /)
  })
})

describe('stopped before its end', () => {
  test('SIGINT: 130, and what was made is ended', async () => {
    const { box, live } = issuer()
    const child = spawn(program, ['provider', 'test', './issuer', '--yes'], {
      cwd: box.home,
      env: { HOME: box.home, PATH: '/usr/bin:/bin' },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const errors: string[] = []
    child.stderr.on('data', (chunk: Buffer) => errors.push(chunk.toString()))
    while (live().length < 2) await new Promise((resolve) => setTimeout(resolve, 10))
    child.kill('SIGINT')
    const [code] = (await once(child, 'close')) as [number]
    expect(code, errors.join('')).toBe(130)
    expect(errors.join('')).toMatch(
      /the suite was stopped before its end\n {2}now: everything that the suite made is ended/,
    )
    expect(live()).toEqual([])
  })
})
