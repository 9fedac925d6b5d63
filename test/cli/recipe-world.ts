/**
 * The world of a team with four credentials: OpenAI, PostgreSQL, Stripe and GitHub issue
 * them, two Vercel projects, two Render services, 1Password and an `.env` file need all
 * of them, and Slack and a mail server are told of rotations. The application answers for
 * what really runs: each place is asked with the value of its latest deployment.
 */
import { writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo, Server } from 'node:net'
import pg from 'pg'
import { SMTPServer } from 'smtp-server'
import { expect } from 'vitest'
import type { z } from 'zod'
import type * as rotation from '../contract/rotation.ts'
import { selfSigned } from '../fakes/certificate.ts'
import { FakeGithub } from '../fakes/github.ts'
import { FakeRender, FakeVercel } from '../fakes/hosting.ts'
import { FakeOp } from '../fakes/op.ts'
import { FakeOpenai } from '../fakes/openai.ts'
import type { Server as Postgres } from '../fakes/postgres-server.ts'
import { FakeStripe } from '../fakes/stripe.ts'
import { expectNoTrace, type Result } from './program.ts'
import { option, World } from './rotation-world.ts'

/**
 * The variables that consumers of the four credentials read, which are also the last
 * parts of their paths.
 */
export const names = ['OPENAI_API_KEY', 'DATABASE', 'STRIPE_API_KEY', 'GITHUB_TOKEN'] as const
export type Name = (typeof names)[number]

export const pathOf = (name: Name): string => `production/app/${name}`
/** A login has several fields; its consumers want it as one address. */
const variableOf = (name: Name): string => (name === 'DATABASE' ? 'DATABASE_URL' : name)

export type Due = z.output<typeof rotation.runDue>

export interface Message {
  readonly from: 'slack' | 'mail'
  /** `Key Rotation Complete: production/app/…` */
  readonly title: string
  /** The text of the message as people read it. */
  readonly text: string
}

const mailPassword = 'mail-password-0123456789'
const slackPath = '/services/T000/B000/slack-secret-0123456789'

export class Recipe {
  readonly world = new World()
  readonly openai = new FakeOpenai()
  readonly stripe = new FakeStripe()
  readonly github = new FakeGithub()
  readonly vercel = new FakeVercel()
  readonly render = new FakeRender()
  readonly op = new FakeOp()
  /** Everything that Slack and the mail server were told, in order. */
  readonly messages: Message[] = []
  readonly #mails: { readonly secure: boolean; readonly user: unknown }[] = []
  readonly #values = new Set<string>()
  readonly #gets = new Set<Result>()
  readonly #ends: (() => unknown)[] = []
  readonly #postgres: Postgres
  readonly #roles: readonly [string, string]
  #sites: readonly string[] = []
  #services: readonly string[] = []
  #health = ''
  #told = 0

  constructor(postgres: Postgres, serial: number) {
    this.#postgres = postgres
    this.#roles = [`app_a${serial}`, `app_b${serial}`]
  }

  // ---- what an operator does once

  async start(): Promise<this> {
    await this.world.init()
    await Promise.all([
      this.openai.start(),
      this.stripe.start(),
      this.github.start(),
      this.vercel.start(),
      this.render.start(),
    ])
    // Deployments are live at once; how they are waited for is tested elsewhere.
    this.vercel.work = 0
    this.render.work = 0
    const before = await this.#credentials()
    const env = Object.fromEntries(names.map((name) => [variableOf(name), before[name]]))
    this.#sites = [this.vercel.project('site', env), this.vercel.project('admin', env)]
    this.#services = [this.render.service('api', env), this.render.service('worker', env)]
    for (const [name, value] of Object.entries(env))
      this.op.add(name, [{ id: 'credential', type: 'CONCEALED', label: 'credential', value }])
    writeFileSync(
      this.world.box.path('app.env'),
      Object.entries(env)
        .map(([name, value]) => `${name}=${value}\n`)
        .join(''),
      { mode: 0o600 },
    )
    this.#health = await this.#listen(
      createServer(
        (request, response) =>
          void this.#answer(request).then((status) => response.writeHead(status).end()),
      ),
    )
    await this.#receivers()
    for (const [i, name] of names.entries()) await this.#schedule(name, [30, 90, 60, 180][i] ?? 0)
    return this
  }

  /** What is in use on day 0, made by hand at each provider, and stored. */
  async #credentials(): Promise<Readonly<Record<Name, string>>> {
    const [a, b] = this.#roles
    const password = 'first-password-0123456789'
    const admin = this.#client('admin', this.#postgres.password)
    await admin.connect()
    await admin.query(`CREATE ROLE ${a} LOGIN PASSWORD '${password}'`)
    await admin.query(`CREATE ROLE ${b} NOLOGIN`)
    await admin.end()
    const { port } = this.#postgres
    const url = `postgresql://${a}:${password}@127.0.0.1:${port}/postgres`
    const login = {
      username: a,
      password,
      host: '127.0.0.1',
      port: String(port),
      database: 'postgres',
      url,
    }
    const values = {
      OPENAI_API_KEY: this.openai.key(this.openai.account('by hand'), 'by hand').value,
      DATABASE: url,
      STRIPE_API_KEY: this.stripe.key('by hand').token,
      GITHUB_TOKEN: this.personalToken('first'),
    }
    const { world } = this
    await world.ok(['set', pathOf('OPENAI_API_KEY'), '--type', 'api_key'], {
      input: values.OPENAI_API_KEY,
    })
    await world.ok(
      ['set', pathOf('DATABASE'), '--type', 'database_password', '--fields-from', '-'],
      { input: JSON.stringify(login) },
    )
    await world.ok(['set', pathOf('STRIPE_API_KEY'), '--type', 'stripe_key'], {
      input: values.STRIPE_API_KEY,
    })
    await world.ok(['set', pathOf('GITHUB_TOKEN'), '--type', 'token'], {
      input: values.GITHUB_TOKEN,
    })
    // Tokens of those who deliver lie in the vault too, and the configuration names them.
    for (const [name, token] of Object.entries({
      VERCEL: this.vercel.token,
      RENDER: this.render.token,
      OP: this.op.state.token,
    }))
      await world.ok(['set', `infra/tokens/${name}`], { input: token })
    for (const value of [url, password, values.STRIPE_API_KEY, values.OPENAI_API_KEY])
      this.#values.add(value)
    return values
  }

  async #schedule(name: Name, days: number): Promise<void> {
    const { world } = this
    const ref = (token: string) => ({ secret: `infra/tokens/${token}` })
    const named = name === 'DATABASE' ? { fields: { url: variableOf(name) } } : {}
    const providers: Readonly<Record<Name, readonly [string, unknown]>> = {
      OPENAI_API_KEY: [
        'openai',
        { adminKey: this.openai.adminKey, projectId: 'proj_1', baseUrl: this.openai.url },
      ],
      DATABASE: [
        'postgres',
        {
          host: '127.0.0.1',
          port: this.#postgres.port,
          admin: { user: 'admin', password: this.#postgres.password },
          users: this.#roles,
        },
      ],
      STRIPE_API_KEY: ['stripe', { baseUrl: this.stripe.url }],
      GITHUB_TOKEN: ['github', { baseUrl: this.github.url }],
    }
    const [provider, config] = providers[name]
    const rhythm = [
      '--interval',
      String(days),
      '--grace',
      '24h',
      '--notify',
      'team,owners',
      '--notify-before',
      '7d',
    ]
    const item = {
      type: 'onepassword',
      vault: 'Production',
      item: variableOf(name),
      field: 'credential',
    }
    await world.ok([
      'schedule',
      'set',
      pathOf(name),
      '--provider',
      provider,
      ...rhythm,
      ...option('--config', config),
      ...option('--target', {
        type: 'vercel',
        projects: '*',
        token: ref('VERCEL'),
        baseUrl: this.vercel.url,
        irreversible: true,
        ...named,
      }),
      ...option('--target', {
        type: 'render',
        services: '*',
        token: ref('RENDER'),
        baseUrl: this.render.url,
        ...named,
      }),
      ...option('--target', { ...item, token: ref('OP'), program: this.op.path, ...named }),
      ...option('--target', { type: 'env-file', path: world.box.path('app.env'), ...named }),
      ...option('--check', {
        type: 'http',
        url: `${this.#health}/health/${name}`,
        header: { 'X-Value': name === 'DATABASE' ? '{url}' : '{value}' },
      }),
    ])
    // A key of OpenAI does not say its own id, so the operator does; then it can be
    // revoked like those that come after it.
    const [id = ''] = this.openai.keys.keys()
    if (name === 'OPENAI_API_KEY') await world.ok(['adopt', pathOf(name), '--key-id', id])
  }

  /** Stripe has approved an app meanwhile: new keys need no person any more. */
  async manageStripe(): Promise<void> {
    const { appKey, account, url } = this.stripe
    const config = {
      mode: 'api',
      apiKey: appKey,
      account,
      permissions: ['charge_read'],
      baseUrl: url,
    }
    await this.world.ok([
      'schedule',
      'set',
      pathOf('STRIPE_API_KEY'),
      ...option('--config', config),
    ])
  }

  /** A token that a person makes on GitHub's page. */
  personalToken(label: string): string {
    const value = `ghp_${label}${Math.random().toString(36).slice(2).padEnd(30, 'x')}`
    this.github.tokens.set(value, { login: 'octo', rights: 'write', scopes: ['repo'] })
    this.#values.add(value)
    return value
  }

  /** A key that a person makes in Stripe's dashboard. */
  dashboardKey(): string {
    const { token } = this.stripe.key('by hand')
    this.#values.add(token)
    return token
  }

  /** A person expires all keys but this one. */
  expireAllBut(token: string): void {
    for (const key of this.stripe.keys.values()) if (key.token !== token) key.status = 'expired'
  }

  // ---- what cron does

  /**
   * `rotate run-due` as a crontab has it: no variable but the two that cron sets itself.
   */
  async cron(code: number): Promise<Due> {
    const { world } = this
    const result = await world.run(['run-due', '--key-file', world.box.keyFile, '--json'], {
      env: { ROTATE_KEY_FILE: undefined },
    })
    expect(result.code, result.stderr).toBe(code)
    for (const value of this.openai.values) this.#values.add(value)
    for (const key of this.stripe.keys.values()) this.#values.add(key.token)
    return (JSON.parse(result.stdout) as { data: Due }).data
  }

  // ---- what is seen from outside

  /** The value that scripts get with `rotate get`. */
  async get(name: Name): Promise<string> {
    const more = name === 'DATABASE' ? ['--field', 'url'] : []
    const result = await this.world.ok(['get', pathOf(name), '--silent', '-n', ...more])
    this.#gets.add(result)
    this.#values.add(result.stdout)
    if (name === 'DATABASE') this.#values.add(new URL(result.stdout).password)
    return result.stdout
  }

  /** Does the service that issued this value accept it? */
  async accepts(name: Name, value: string): Promise<boolean> {
    if (name === 'OPENAI_API_KEY')
      return [...this.openai.keys.values()].some((key) => key.value === value)
    if (name === 'STRIPE_API_KEY') return this.stripe.accepts(value)
    if (name === 'GITHUB_TOKEN') return this.github.tokens.has(value)
    const { username, password } = new URL(value)
    const client = this.#client(username, password)
    try {
      await client.connect()
      await client.query('SELECT 1')
      return true
    } catch {
      return false
    } finally {
      await client.end().catch(() => undefined)
    }
  }

  #client(user: string, password: string): pg.Client {
    const client = new pg.Client({
      host: '127.0.0.1',
      port: this.#postgres.port,
      database: 'postgres',
      user,
      password,
    })
    client.on('error', () => undefined)
    return client
  }

  /** How many of its credentials live: keys, tokens, roles that can log in. */
  async alive(name: Name): Promise<number> {
    if (name === 'OPENAI_API_KEY') return this.openai.keys.size
    if (name === 'STRIPE_API_KEY') return this.stripe.live().length
    if (name === 'GITHUB_TOKEN') return this.github.tokens.size
    const admin = this.#client('admin', this.#postgres.password)
    await admin.connect()
    const { rows } = await admin.query(
      'SELECT 1 FROM pg_roles WHERE rolcanlogin AND rolname = ANY($1)',
      [this.#roles],
    )
    await admin.end()
    return rows.length
  }

  /** The value that each place holds for its next start. */
  held(name: Name): readonly (string | undefined)[] {
    const variable = variableOf(name)
    return [
      ...this.#sites.map(
        (id) => this.vercel.projects.get(id)?.env.find(({ key }) => key === variable)?.value,
      ),
      ...this.#services.map((id) => this.render.services.get(id)?.env.get(variable)),
      this.op.value(variable, 'credential'),
      this.#fromFile(variable),
    ]
  }

  /** The value that each place runs with. */
  running(name: Name): readonly (string | undefined)[] {
    const variable = variableOf(name)
    return [
      ...this.#sites.map((id) => this.vercel.projects.get(id)?.running.get(variable)),
      ...this.#services.map((id) => this.render.services.get(id)?.running.get(variable)),
    ]
  }

  #fromFile(variable: string): string | undefined {
    const line = this.world
      .read('app.env')
      .split('\n')
      .find((one) => one.startsWith(`${variable}=`))
    return line?.slice(variable.length + 1).replaceAll(/^["']|["']$/g, '')
  }

  /**
   * 200 when every place runs with the value that is presented, and gets through to the
   * provider with it.
   */
  async #answer({ url = '', headers }: IncomingMessage): Promise<number> {
    const name = names.find((one) => url === `/health/${one}`)
    if (name === undefined) return 404
    for (const value of this.running(name))
      if (value === undefined || value !== headers['x-value'] || !(await this.accepts(name, value)))
        return 503
    return 200
  }

  /**
   * Expects that every place holds the current value and runs with it, that this many
   * credentials are alive, and that the provider accepts the value that scripts get.
   */
  async expectSettled(name: Name, alive: number): Promise<string> {
    const value = await this.get(name)
    expect(await this.accepts(name, value), name).toBe(true)
    expect(await this.alive(name), name).toBe(alive)
    expect(this.running(name), name).toEqual([value, value, value, value])
    expect(this.held(name), name).toEqual([value, value, value, value, value, value])
    return value
  }

  // ---- Slack and mail

  async #receivers(): Promise<void> {
    const slack = await this.#listen(
      createServer((request, response) => {
        const parts: Buffer[] = []
        request.on('data', (part: Buffer) => parts.push(part))
        request.on('end', () => {
          expect(request.url).toBe(slackPath)
          const { text } = JSON.parse(Buffer.concat(parts).toString()) as { text: string }
          this.messages.push({ from: 'slack', title: /\*(.*?)\*/.exec(text)?.[1] ?? '', text })
          response.end('ok')
        })
      }),
    )
    // The program's clock runs half a year ahead.
    const { cert, key } = selfSigned('localhost', 400)
    const smtp = new SMTPServer({
      cert,
      key,
      onAuth: ({ username, password }, _session, done) =>
        password === mailPassword ? done(null, { user: username }) : done(new Error('no')),
      onData: (stream, { secure, user }, done) => {
        const parts: Buffer[] = []
        stream.on('data', (part: Buffer) => parts.push(part))
        stream.on('end', () => {
          this.#mails.push({ secure, user })
          this.messages.push(readMail(Buffer.concat(parts).toString()))
          done()
        })
      },
    })
    smtp.on('error', () => undefined)
    const port = Number(new URL(await this.#listen(smtp.server)).port)
    const { world } = this
    await world.ok(['notify', 'set', 'team', '--config', '-'], {
      input: JSON.stringify({ type: 'slack', url: `${slack}${slackPath}` }),
    })
    const people = { from: 'Rotate <rotate@example.com>', to: ['owner@example.com'] }
    const server = { host: 'localhost', port, ca: cert, user: 'rotate', password: mailPassword }
    await world.ok(['notify', 'set', 'owners', '--config', '-'], {
      input: JSON.stringify({ type: 'email', smtp: server, ...people }),
    })
  }

  /**
   * The messages since the last call. Expects that Slack and mail were told the same, and
   * mail only under TLS and with a login.
   */
  news(): readonly Message[] {
    const fresh = this.messages.slice(this.#told)
    this.#told = this.messages.length
    const titles = (from: Message['from']): readonly string[] =>
      fresh.filter((one) => one.from === from).map(({ title }) => title)
    expect(titles('mail').map((title) => title.replace(/^URGENT: /, ''))).toEqual(titles('slack'))
    for (const mail of this.#mails) expect(mail).toEqual({ secure: true, user: 'rotate' })
    return fresh
  }

  /**
   * Expects that no value and no token stands in what was printed, sent, logged or given
   * on a command line, or in a file that is not meant to hold it.
   */
  expectNothingShown(): void {
    expect(this.#values.size).toBeGreaterThan(5)
    const tokens = [
      this.vercel.token,
      this.render.token,
      this.op.state.token,
      this.openai.adminKey,
      this.stripe.appKey,
    ]
    const own = [mailPassword, slackPath, this.#postgres.password]
    const outside = [
      ...this.messages.map(({ text }) => text),
      ...[this.vercel, this.render, this.github, this.stripe, this.openai].flatMap(
        ({ calls }) => calls,
      ),
      ...this.op.argvs,
    ].join('\n')
    for (const value of this.#values) {
      expectNoTrace(this.world.box, value, {
        shownBy: [...this.#gets],
        heldBy: [this.world.box.path('app.env')],
      })
      expect(outside).not.toContain(value)
      expect(outside).not.toContain(encodeURIComponent(value))
    }
    for (const token of [...tokens, ...own]) {
      expectNoTrace(this.world.box, token)
      expect(outside).not.toContain(token)
    }
    const made = [...this.#values].filter((value) => !value.includes('first-password'))
    const log = this.#postgres.log()
    for (const value of made) expect(log).not.toContain(value)
  }

  // ---- ends

  async #listen(server: Server): Promise<string> {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    this.#ends.push(() => server.close())
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  async stop(): Promise<void> {
    for (const end of this.#ends) end()
    this.op.remove()
    await Promise.all(
      [this.openai, this.stripe, this.github, this.vercel, this.render].map((fake) => fake.stop()),
    )
    await this.world.close()
  }
}

/** Subject and text of a mail as its reader sees them. */
function readMail(raw: string): Message {
  const [head = '', ...rest] = raw.split('\r\n\r\n')
  const header = (name: string): string =>
    new RegExp(`^${name}: ((?:.*\\r\\n[ \\t])*.*)$`, 'im')
      .exec(head)?.[1]
      ?.replaceAll(/\r\n[ \t]/g, ' ') ?? ''
  const body = rest.join('\r\n\r\n')
  const text =
    header('Content-Transfer-Encoding') === 'base64'
      ? Buffer.from(body, 'base64').toString()
      : Buffer.from(
          body
            .replaceAll('=\r\n', '')
            .replaceAll(/=([0-9A-F]{2})/g, (_all, hex: string) =>
              String.fromCharCode(Number.parseInt(hex, 16)),
            ),
          'latin1',
        ).toString()
  return { from: 'mail', title: header('Subject'), text: text.replaceAll('\r\n', '\n') }
}
