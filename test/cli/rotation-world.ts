/**
 * What the rotation tests have in common: a web hook or AWS far side with a secret and a
 * schedule, and a clock that can be moved.
 */
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect } from 'vitest'
import { DAY } from '../../src/core/duration.ts'
import { FakeAws, type FakeKey } from '../fakes/aws.ts'
import { FakeWebhook, type WebhookSettings } from '../fakes/webhook.ts'
import { type Result, type RunOptions, Sandbox } from './program.ts'

const library = readdirSync('/usr/lib', { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => `/usr/lib/${entry.name}/faketime/libfaketime.so.1`)
  .find((file) => existsSync(file))

/**
 * Can the clock of a child be moved? Debian's package faketime; without it the tests that
 * need it are skipped, but not in CI.
 */
export const canMoveClock = library !== undefined
if (!canMoveClock) {
  if (process.env['CI'] !== undefined)
    throw new Error('the package faketime is missing: its library moves the clock of the program')
  process.stderr.write('skipped: tests that move the clock need the Debian package faketime\n')
}

/** The environment in which the program lives that many milliseconds later. */
export function later(ms: number): Readonly<Record<string, string>> {
  return ms === 0
    ? {}
    : {
        LD_PRELOAD: library ?? '',
        FAKETIME: `+${Math.round(ms / 1000)}`,
        DONT_FAKE_MONOTONIC: '1',
        FAKETIME_DONT_FAKE_MONOTONIC: '1',
      }
}

/** A sandbox whose clock only moves forward, as a vault expects. */
export class World {
  readonly box = new Sandbox()
  #offset = 0
  readonly #ends: (() => Promise<void>)[] = []

  async init(): Promise<this> {
    await this.box.init()
    return this
  }

  /** Runs `rotate` at this world's time. */
  run(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    return this.box.run(args, { ...options, env: { ...later(this.#offset), ...options.env } })
  }

  /** Runs, and expects success. */
  async ok(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    const result = await this.run(args, options)
    expect(result.code, `${args.join(' ')}: ${result.stderr}`).toBe(0)
    return result
  }

  /** `data` of a run with `--json`, whatever its exit code. */
  async data<T>(args: readonly string[], code = 0, options: RunOptions = {}): Promise<T> {
    const result = await this.run([...args, '--json'], options)
    expect(result.code, `${args.join(' ')}: ${result.stderr}`).toBe(code)
    return (JSON.parse(result.stdout) as { data: T }).data
  }

  get(path: string, ...more: readonly string[]): Promise<string> {
    return this.ok(['get', path, '-n', ...more]).then((result) => result.stdout)
  }

  /** Lets time pass, for the program and for AWS. */
  pass(ms: number): void {
    this.#offset += ms
    for (const aws of this.#clouds) aws.settings.clockOffsetMs = this.#offset
  }

  now(): number {
    return Date.now() + this.#offset
  }

  readonly #clouds: FakeAws[] = []

  async hook(
    settings: Partial<WebhookSettings> & { live?: readonly string[] } = {},
  ): Promise<FakeWebhook> {
    const fake = await FakeWebhook.start({
      ...settings,
      actions: settings.actions ?? (settings.overlap === true ? ['verify', 'revoke'] : []),
    })
    this.#ends.push(() => fake.stop())
    return fake
  }

  /**
   * A secret with this value and a schedule at a web hook of which old and new work side
   * by side; `more` are further options of the schedule.
   */
  async connected(path: string, value: string, ...more: readonly string[]): Promise<FakeWebhook> {
    const hook = await this.hook({ overlap: true, live: [value] })
    await this.ok(['set', path], { input: value })
    await this.ok([
      'schedule',
      'set',
      path,
      '--provider',
      'custom',
      '--interval',
      '30',
      '--config',
      configOf(hook),
      ...more,
    ])
    return hook
  }

  /**
   * Starts an application that says whether the value in the header `X-Value` is right,
   * and returns the option for a check that asks it.
   */
  async application(isRight: (value: string) => boolean): Promise<readonly string[]> {
    const server = createServer((request, response) =>
      response.writeHead(isRight(String(request.headers['x-value'] ?? '')) ? 200 : 503).end(),
    )
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    this.#ends.push(() => new Promise((resolve) => server.close(() => resolve())))
    const { port } = server.address() as AddressInfo
    return option('--check', {
      type: 'http',
      url: `http://127.0.0.1:${port}/`,
      header: { 'X-Value': '{value}' },
    })
  }

  async aws(user = 'svc'): Promise<{
    readonly fake: FakeAws
    readonly first: FakeKey
    readonly config: Readonly<Record<string, unknown>>
  }> {
    const fake = await FakeAws.start({ now: () => this.now() })
    fake.settings.clockOffsetMs = this.#offset
    this.#clouds.push(fake)
    this.#ends.push(() => fake.close())
    fake.addUser(user)
    const first = fake.addKey(user)
    const { id: accessKeyId, secret: secretAccessKey } = fake.admin
    return {
      fake,
      first,
      config: {
        accessKeyId,
        secretAccessKey,
        region: 'us-east-1',
        iamUserName: user,
        endpoint: fake.url,
      },
    }
  }

  /** An executable file with this body, which others may not write. */
  script(name: string, body: string): string {
    const file = this.box.path(name)
    writeFileSync(file, `#!/bin/sh\n${body}\n`)
    chmodSync(file, 0o700)
    return file
  }

  read(name: string): string {
    const file = this.box.path(name)
    return existsSync(file) ? readFileSync(file, 'utf8') : ''
  }

  async close(): Promise<void> {
    await Promise.all(this.#ends.map((end) => end()))
    this.box.dispose()
  }
}

/** `--config` for a fake web hook as it is set. */
export function configOf(fake: FakeWebhook): string {
  const { secret, overlap, idempotent, actions } = fake.settings
  return JSON.stringify({
    webhookUrl: fake.hookUrl,
    secret,
    // The fake does nothing any more once it has answered, so nothing has to be waited
    // for.
    settlesAfter: '0s',
    ...(overlap ? { overlap } : {}),
    ...(idempotent ? { idempotent } : {}),
    ...(actions.length > 0 ? { actions } : {}),
  })
}

/** An option with its JSON: `--target {…}`, `--check {…}`. */
export function option(
  flag: '--target' | '--check' | '--config',
  value: unknown,
): readonly [string, string] {
  return [flag, JSON.stringify(value)]
}

export const HOUR = DAY / 24
