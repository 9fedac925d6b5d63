/**
 * `rotate demo`: a complete rotation with nothing external. It runs the same commands
 * that a user would, as processes of their own, prints each, and asks the service itself
 * what it accepts. There is no private shortcut: what it shows is what the program does.
 */
import { spawn } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { RotateError } from '../../core/errors.ts'
import type { Clock, Random } from '../../core/ports.ts'
import type { RunView } from '../runs/run-view.ts'
import { type DemoService, startService } from './service.ts'

export interface DemoInput {
  /** Make the check fail, to show how a rotation is undone. */
  readonly breakCheck: boolean
  /**
   * Where everything is put and left; without it a directory that is removed at the end.
   */
  readonly keep: string | undefined
  /** How to start this very program: its runtime and its file. */
  readonly self: readonly [string, ...string[]]
  readonly path: string
  readonly clock: Clock
  readonly random: Random
  readonly signal: AbortSignal
}

/**
 * What is shown as it happens: a heading, a command with its output, or a fact that the
 * demo asked the service for.
 */
export type Shown =
  | { readonly kind: 'heading' | 'fact'; readonly text: string }
  | { readonly kind: 'command'; readonly text: string }
  | { readonly kind: 'output'; readonly text: string; readonly stream: 'stdout' | 'stderr' }

export interface DemoResult {
  readonly run: RunView
  /** Everything was as it must be. */
  readonly ok: boolean
  readonly faults: readonly string[]
}

const SECRET = 'demo/app/API_KEY'
const GRACE_SECONDS = 2

interface Stage {
  readonly input: DemoInput
  readonly dir: string
  readonly service: DemoService
  readonly env: Readonly<Record<string, string>>
  readonly show: (shown: Shown) => void
  readonly faults: string[]
}

/** Plays the demo. Throws `conflict` when the directory `keep` holds an earlier demo. */
export async function demo(input: DemoInput, show: (shown: Shown) => void): Promise<DemoResult> {
  const dir =
    input.keep === undefined
      ? mkdtempSync(join(tmpdir(), 'rotate-demo-'))
      : freshDirectory(input.keep)
  const service = await startService(dir, input.random, { broken: input.breakCheck })
  try {
    const env = {
      PATH: `${dir}:${input.path}`,
      HOME: dir,
      ROTATE_VAULT: join(dir, 'vault.db'),
      ROTATE_KEY_FILE: join(dir, 'key'),
      XDG_STATE_HOME: join(dir, 'state'),
      ROTATE_NO_INPUT: '1',
    }
    const stage: Stage = { input, dir, service, env, show, faults: [] }
    const run = await play(stage)
    return { run, ok: stage.faults.length === 0, faults: stage.faults }
  } finally {
    await service.close()
    if (input.keep === undefined) rmSync(dir, { recursive: true, force: true })
  }
}

function freshDirectory(path: string): string {
  const dir = resolve(path)
  if (existsSync(join(dir, 'vault.db')) || existsSync(join(dir, 'service.json'))) {
    throw new RotateError('conflict', `${dir} holds an earlier demo; nothing was changed`, {
      hint: 'name a new directory',
    })
  }
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  return dir
}

async function play(stage: Stage): Promise<RunView> {
  const { service, dir, show } = stage
  show({
    kind: 'heading',
    text:
      `A service is listening on ${service.url}. It accepts a key only while it is live, and ` +
      'refuses a revoked one.',
  })
  const first = service.issue()
  prepare(stage)

  show({ kind: 'heading', text: '1  A vault, and the key that an administrator made by hand' })
  await command(stage, ['init'])
  await command(stage, ['set', SECRET, '-', '--type', 'api_key'], {
    input: first,
    shown: `printf %s "$KEY" | rotate set ${SECRET} - --type api_key`,
  })

  show({ kind: 'heading', text: '2  Who issues it, who needs it, what proves that it works' })
  const targets = ['--target', '@target.json', '--check', '@check.json']
  await command(stage, [
    'schedule',
    'set',
    SECRET,
    '--provider',
    'custom',
    '--interval',
    '30',
    '--grace',
    `${GRACE_SECONDS}s`,
    '--config',
    '@provider.json',
    ...targets,
  ])
  await command(stage, ['plan', SECRET])

  show({ kind: 'heading', text: '3  Rotate' })
  const run = await rotateNow(stage)
  const fresh = service.state().live.find((key) => key !== first)
  if (stage.input.breakCheck) await afterBrokenCheck(stage, first)
  else await afterRotation(stage, first, fresh)

  show({ kind: 'heading', text: `${stage.input.breakCheck ? '4' : '6'}  What happened` })
  await command(stage, ['history', SECRET])
  await command(stage, ['audit', 'list'])
  await command(stage, ['audit', 'verify'])
  if (stage.input.keep !== undefined) {
    show({ kind: 'heading', text: 'To go on by hand' })
    show({
      kind: 'fact',
      text:
        `cd ${dir} && . ./env.sh && rotate demo --serve ${dir} &   starts the service again ` +
        'with its state',
    })
  }
  return run
}

/** The files a user would write, and the smoke test that reads the value from a pipe. */
function prepare(stage: Stage): void {
  const { dir, service, input } = stage
  const put = (name: string, text: string, mode = 0o600): void =>
    writeFileSync(join(dir, name), text, { mode })
  const provider = {
    webhookUrl: `${service.url}/hook`,
    secret: service.state().hookSecret,
    overlap: true,
    idempotent: true,
    actions: ['verify', 'revoke'],
  }
  const check = {
    type: 'http',
    url: `${service.url}/v1/whoami`,
    header: 'X-Api-Key',
    expectedStatus: 200,
  }
  put('provider.json', `${JSON.stringify(provider, null, 2)}\n`)
  put(
    'target.json',
    `${JSON.stringify({ type: 'env-file', path: join(dir, 'app.env'), name: 'API_KEY' })}\n`,
  )
  put('check.json', `${JSON.stringify(check)}\n`)
  put('app.env', '# the application reads this file\nPORT=8080\n')
  const smoke =
    `let key='';process.stdin.on('data',(d)=>{key+=d}).on('end',()=>{fetch('${service.url}/v1/whoami',{headers:{'x-api-key':key.trim()}}).then((r)=>{console.log('smoke ` +
    `test: the service answered '+r.status);process.exit(r.ok?0:1)})})\n`
  put('smoke-test.mjs', smoke)
  put(
    'smoke-test.sh',
    `#!/bin/sh\nexec ${quoted(input.self[0])} ${quoted(join(dir, 'smoke-test.mjs'))}\n`,
    0o700,
  )
  put('rotate', `#!/bin/sh\nexec ${input.self.map(quoted).join(' ')} "$@"\n`, 0o700)
  chmodSync(join(dir, 'rotate'), 0o700)
  put(
    'env.sh',
    Object.entries(stage.env)
      .map(([name, value]) => `export ${name}=${quoted(value)}\n`)
      .join(''),
  )
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}

async function rotateNow(stage: Stage): Promise<RunView> {
  const { stdout, code } = await command(stage, ['now', SECRET, '--json', '-v'], {
    shown: `rotate now ${SECRET}`,
    hideStdout: true,
    expect: stage.input.breakCheck ? 20 : 0,
  })
  const parsed = JSON.parse(stdout === '' ? '{}' : stdout) as { data?: RunView }
  if (parsed.data === undefined)
    throw new RotateError(
      'failed',
      `the rotation of the demo ended with exit ${code} and no report`,
    )
  if (parsed.data.success)
    stage.show({
      kind: 'output',
      text: `${SECRET} version ${parsed.data.version ?? ''}`,
      stream: 'stdout',
    })
  return parsed.data
}

async function afterRotation(
  stage: Stage,
  first: string,
  fresh: string | undefined,
): Promise<void> {
  const { show, input } = stage
  if (fresh === undefined) {
    stage.faults.push('the service has no new key')
    return
  }
  await checkAnswer(stage, 'old key, in grace', first, 200)
  await checkAnswer(stage, 'new key', fresh, 200)
  const env = readFileSync(join(stage.dir, 'app.env'), 'utf8')
  fact(
    stage,
    `app.env ${env.includes(fresh) ? 'holds the new key' : 'does NOT hold the new key'}`,
    env.includes(fresh),
  )

  show({
    kind: 'heading',
    text:
      `4  Grace is over (${GRACE_SECONDS} seconds here, a day by default): cron ends the ` +
      'old key',
  })
  await input.clock.sleep(GRACE_SECONDS * 1000 + 300, input.signal)
  await command(stage, ['run-due'])
  await checkAnswer(stage, 'old key', first, 401)
  await checkAnswer(stage, 'new key', fresh, 200)

  show({ kind: 'heading', text: '5  Scripts read the value from a pipe' })
  await shell(stage, `rotate get ${SECRET} --silent | ./smoke-test.sh`)
}

async function afterBrokenCheck(stage: Stage, first: string): Promise<void> {
  await checkAnswer(stage, 'old key, still current', first, 200)
  const env = readFileSync(join(stage.dir, 'app.env'), 'utf8')
  fact(
    stage,
    `app.env ${env.includes('API_KEY') ? 'still has the key that failed' : 'is as it was'}`,
    !env.includes('API_KEY'),
  )
  const { live } = stage.service.state()
  fact(
    stage,
    `the service has ${live.length} live key${live.length === 1 ? '' : 's'}: the new one was ` +
      'revoked again',
    live.length === 1,
  )
  await shell(stage, `rotate get ${SECRET} --silent | ./smoke-test.sh`)
}

function fact(stage: Stage, text: string, ok: boolean): void {
  stage.show({ kind: 'fact', text: `${ok ? 'ok  ' : 'FAIL'} ${text}` })
  if (!ok) stage.faults.push(text)
}

/** Asks the service itself, with a plain HTTP request. */
async function checkAnswer(
  stage: Stage,
  what: string,
  key: string,
  expected: number,
): Promise<void> {
  const status = await new Promise<number>((resolveStatus, reject) => {
    request(`${stage.service.url}/v1/whoami`, { headers: { 'x-api-key': key } }, (response) => {
      response.resume()
      resolveStatus(response.statusCode ?? 0)
    })
      .on('error', reject)
      .end()
  })
  fact(stage, `${what} (…${key.slice(-4)}): the service answers ${status}`, status === expected)
}

interface CommandOptions {
  readonly input?: string
  readonly shown?: string
  readonly hideStdout?: boolean
  readonly expect?: number
}

/** Runs one command of this program in a process of its own, as a user would. */
async function command(
  stage: Stage,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<{ readonly stdout: string; readonly code: number | null }> {
  stage.show({ kind: 'command', text: options.shown ?? `rotate ${args.join(' ')}` })
  return run(stage, [...stage.input.self, ...args], `rotate ${args[0] ?? ''}`, options)
}

async function shell(stage: Stage, line: string): Promise<void> {
  stage.show({ kind: 'command', text: line })
  await run(stage, ['/bin/sh', '-c', line], 'the smoke test', {})
}

async function run(
  stage: Stage,
  argv: readonly string[],
  what: string,
  options: CommandOptions,
): Promise<{ readonly stdout: string; readonly code: number | null }> {
  const [program = '', ...rest] = argv
  const child = spawn(program, rest, {
    cwd: stage.dir,
    env: { ...stage.env },
    stdio: ['pipe', 'pipe', 'pipe'],
    signal: stage.input.signal,
  })
  child.stdin.on('error', () => undefined)
  child.stdin.end(options.input ?? '')
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const code = await new Promise<number | null>((done, reject) => {
    child.on('error', reject)
    child.on('close', done)
  })
  const text =
    stderr.startsWith('{"error"') || stderr.includes('\n{"error"') ? plainError(stderr) : stderr
  for (const line of text.split('\n'))
    if (line !== '') stage.show({ kind: 'output', text: line, stream: 'stderr' })
  if (options.hideStdout !== true)
    for (const line of stdout.split('\n'))
      if (line !== '') stage.show({ kind: 'output', text: line, stream: 'stdout' })
  const expected = options.expect ?? 0
  if (code !== expected)
    fact(stage, `${what} ended with exit ${code} instead of ${expected}`, false)
  else if (expected !== 0)
    stage.show({ kind: 'fact', text: `ok   ${what} ended with exit ${expected}` })
  return { stdout, code }
}

/** The error document as the text that a person would have seen. */
function plainError(stderr: string): string {
  return stderr
    .split('\n')
    .map((line) => {
      if (!line.startsWith('{"error"')) return line
      const { error } = JSON.parse(line) as { error: { message: string; hint?: string | null } }
      const hint = error.hint == null ? '' : `\nrotate: hint: ${error.hint}`
      return `rotate: error: ${error.message}${hint}`
    })
    .join('\n')
}
